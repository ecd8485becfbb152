# SPDX-License-Identifier: Apache-2.0
"""Which tokens of a prompt are which rank's."""

from typing import Any

import torch

#: A part is packed and attended to at once. Up to here a layer never splits its keys
#: further, whatever the backend: a row's bits depend on its own keys alone.
MOST_PART_TOKENS = 1024
#: Shorter ones cost more in merging and in calls than they are worth.
_FEWEST_PART_TOKENS = 256
#: Two for each of eight ranks.
_PARTS = 16


class PromptParts:
    """A prompt, cut into parts of equal length that are dealt to ranks there and back.

    Of ``2 * ranks`` parts that follow each other rank r has numbers r and ``2 * ranks - 1 - r``
    (zig-zag halves), so that the pairs of a query and a key that it sees are as many for each.
    How a prompt is cut depends on its length alone, not on the ranks.

    Attributes:
        tokens: of the prompt.
        ranks: how many share it.
        part_tokens: of each part but the last.
    """

    def __init__(self, tokens: int, ranks: int, part_tokens: int | None = None) -> None:
        """
        Args:
            part_tokens: 1 to 1024; None: a sixteenth of the prompt, but at least 256 and at
                most 1024. Best is the longest that makes two parts or more for each rank. All
                ranks must say the same.

        Raises:
            ValueError: an argument breaks a rule; the text names it.
        """
        _require(tokens >= 0, "tokens", tokens, "must be at least 0")
        _require(ranks >= 1, "ranks", ranks, "must be at least 1")
        if part_tokens is None:
            wanted = -(-tokens // _PARTS)
            part_tokens = min(max(wanted, _FEWEST_PART_TOKENS), MOST_PART_TOKENS)
        _require(
            1 <= part_tokens <= MOST_PART_TOKENS, "part_tokens", part_tokens,
            f"must be 1 to {MOST_PART_TOKENS}",
        )  # fmt: skip
        self.tokens, self.ranks, self.part_tokens = tokens, ranks, part_tokens

    def __len__(self) -> int:
        """How many parts there are."""
        return -(-self.tokens // self.part_tokens)

    def span(self, part: int) -> range:
        """A part's tokens."""
        begin = part * self.part_tokens
        return range(begin, min(begin + self.part_tokens, self.tokens))

    @property
    def rounds(self) -> int:
        """In how many they are dealt, two to each rank in all but the last."""
        return -(-len(self) // (2 * self.ranks))

    def place(self, part: int) -> tuple[int, int]:
        """The round in which a part was dealt, and the rank that has it."""
        number, place = divmod(part, 2 * self.ranks)
        return number, min(place, 2 * self.ranks - 1 - place)

    def of(self, rank: int) -> list[int]:
        """A rank's parts, in the prompt's order."""
        _require(0 <= rank < self.ranks, "rank", rank, f"must be 0 to {self.ranks - 1}")
        return [part for part in range(len(self)) if self.place(part)[1] == rank]

    def offsets(self, rank: int) -> list[int]:
        """Where a rank's parts begin among its tokens, and at the end how many it has."""
        offsets = [0]
        for part in self.of(rank):
            offsets.append(offsets[-1] + len(self.span(part)))
        return offsets


def shard(tokens: int, rank: int, ranks: int, part_tokens: int | None = None) -> Any:
    """Positions of a rank's tokens in their prompt, as ``ContextParallelPrefill`` wants them.

    Args:
        tokens: of the prompt.
        part_tokens: as in `PromptParts`.

    Returns:
        An int64 tensor, rising: ``hidden_states[shard(...)]`` are the rank's, and rope is
        applied by these positions.

    Raises:
        ValueError: an argument breaks a rule; the text names it.
    """
    parts = PromptParts(tokens, ranks, part_tokens)
    spans = [torch.arange(span.start, span.stop) for span in map(parts.span, parts.of(rank))]
    return torch.cat(spans) if spans else torch.empty(0, dtype=torch.int64)


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise ValueError(f"{name} = {value}: {rule}")
