# SPDX-License-Identifier: Apache-2.0
"""Scores that an indexer spells and nobody computes.

An indexer's forward makes queries and weights, and takes the keys from the cache; then it
scores each key and gives the highest scores' indices. What it is handed in the keys' place
writes down what it does with them, and where it asks for the highest scores, the library
chooses. So all that comes before stays the indexer's, and whatever it does otherwise is seen.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

#: From keys to masked scores: each step, and its arguments but for those that are read.
_SPELLING = [
    ("transpose", (-1, -2)),
    ("unsqueeze", (1,)),
    ("matmul", None),
    ("relu", ()),
    ("matmul", None),
    ("squeeze", (-2,)),
    ("add", None),
]


class Chosen(NamedTuple):
    """What ``topk`` gives: the scores are nowhere."""

    indices: torch.Tensor


class IndexScores:
    """``sum_h weights_h * relu(q_h . k * factor) + mask`` of queries and keys, unsaid as yet.

    Args:
        keys: ``[batch, keys, head_dim]``.
        queries: how many a request has.
        mask: the one that the indexer was handed: it must add it.
        choose: makes ``[batch, queries, topk]`` of queries ``[batch, queries, heads,
            head_dim]``, weights ``[batch, queries, heads]`` of fp32, keys and topk.
    """

    def __init__(
        self,
        keys: torch.Tensor,
        queries: int,
        mask: torch.Tensor,
        choose: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor],
    ) -> None:
        #: What its forward asks for is that of the scores.
        self.shape = torch.Size((keys.shape[0], queries, keys.shape[1]))
        self._keys = keys
        self._mask = mask
        self._choose = choose
        self._steps: list[tuple[str, tuple[Any, ...]]] = []
        self._factor = 1.0

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: Any = None
    ) -> "IndexScores":
        """Torch's functions of it; in a matmul it is the second factor."""
        return arguments[-1]._then(function.__name__, *arguments[:-1])

    def transpose(self, *dims: int) -> "IndexScores":
        return self._then("transpose", *dims)

    def unsqueeze(self, dim: int) -> "IndexScores":
        return self._then("unsqueeze", dim)

    def squeeze(self, dim: int) -> "IndexScores":
        return self._then("squeeze", dim)

    def float(self) -> "IndexScores":
        """Products and sums are fp32 in any case."""
        return self

    def __mul__(self, factor: Any) -> "IndexScores":
        if not isinstance(factor, (int, float)) or not factor > 0:
            raise ValueError(f"scores are multiplied by {factor}: must be a number above 0")
        self._factor *= factor
        return self

    def __add__(self, mask: Any) -> "IndexScores":
        return self._then("add", mask)

    def topk(self, count: int, dim: int) -> Chosen:
        """Chooses.

        Raises:
            ValueError: the steps up to here are others.
        """
        names = [name for name, _ in self._steps]
        if names != [name for name, _ in _SPELLING] or dim != -1:
            raise ValueError(f"keys are scored by {', '.join(names)}, topk of dimension {dim}")
        for (name, given), (_, wanted) in zip(self._steps, _SPELLING, strict=True):
            if wanted is not None and given != wanted:
                raise ValueError(f"keys are scored by {name}{given}: must be {name}{wanted}")
        ((queries,), (weights,), (mask,)) = (
            given for (_, given), (_, wanted) in zip(self._steps, _SPELLING, strict=True)
            if wanted is None
        )  # fmt: skip
        if mask is not self._mask:
            raise ValueError("scores are masked by something else than the mask")
        rows = self.shape[:2]
        heads, width = queries.shape[2:]
        if queries.shape != (*rows, heads, width) or weights.shape != (*rows, 1, heads):
            raise ValueError(
                f"queries = {tuple(queries.shape)}, weights = {tuple(weights.shape)}: must be "
                f"{(*rows, heads, width)} and {(*rows, 1, heads)}"
            )
        weights = weights[:, :, 0].float() * self._factor
        return Chosen(self._choose(_as_kept(queries, self._keys), weights, self._keys, count))

    def _then(self, step: str, *arguments: Any) -> "IndexScores":
        self._steps.append((step, arguments))
        return self


def _as_kept(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Queries in the keys' type, whose products are faster, if they lose nothing by it."""
    narrow = queries.to(keys.dtype)
    return narrow if torch.equal(narrow.to(queries.dtype), queries) else queries
