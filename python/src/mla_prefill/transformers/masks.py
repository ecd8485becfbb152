# SPDX-License-Identifier: Apache-2.0
"""Masks as ranges of keys, one a request.

What transformers masks by is causality and padding: query i of request b sees the keys
from ``begins[b]`` to before ``min(ends[b], first + i + 1)``. The mask function makes
that of what transformers asks for, once for all layers of a step, and attention
functions read it. Masks of all queries and keys are made only where there is padding
between tokens, as between the turns of padded conversations.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    sdpa_mask,
)

from mla_prefill.transformers.switched import is_switched

#: In the last place of a tensor of ranges, which nobody else's mask of integers has.
_MARK = 0x4D4C41


class Span(NamedTuple):
    """Of one request the queries that are not padding."""

    #: The first of them, and how many they are.
    row: int
    rows: int
    #: The key of the first's own token, and the first key that it sees.
    key: int
    begin: int


class KeyRanges(NamedTuple):
    """The keys that the queries of each request of a batch see."""

    begins: list[int]
    ends: list[int]
    #: The key of the first query's own token.
    first: int
    #: Whether queries may be kept from keys behind their own at all.
    is_causal: bool
    #: ``[batch, keys]``, which keys are seen at all, where some between others are not.
    seen: torch.Tensor | None = None

    def spans(self, queries: int) -> list[Span]:
        """The queries that have a key of their own, one span a request.

        Raises:
            ValueError: queries see keys behind their own.
        """
        if queries > 1 and not self.is_causal:
            raise ValueError("attention_mask: must be causal")
        if queries == 1:
            # Seen from its last key a lone query is causal, wherever that lies.
            own = [min(self.first, end - 1) for end in self.ends]
        else:
            own = [self.first] * len(self.ends)
        spans = []
        for begin, end, first in zip(self.begins, self.ends, own, strict=True):
            row = min(max(begin - first, 0), queries)
            rows = max(min(end - first, queries) - row, 0)
            spans.append(Span(row, rows, first + row if rows else begin, begin))
        return spans

    def alone(self, queries: int) -> Iterator[tuple["KeyRanges", torch.Tensor, torch.Tensor]]:
        """Where there is ``seen``, for each request: its ranges among the keys that are seen,
        these, and those of its queries that are not padding."""
        for seen in () if self.seen is None else self.seen:
            keys = seen.nonzero()[:, 0]
            rows, own = torch.arange(queries, device=seen.device), len(keys) - 1
            if queries > 1 and self.is_causal:
                rows = keys[keys >= self.first] - self.first
                own = len(keys) - len(rows)
            yield KeyRanges([0], [len(keys)], own, self.is_causal), keys, rows

    def as_mask(self, device: Any) -> torch.Tensor:
        """``[batch, 1, 1, 4]``: masks of four dimensions go through transformers untouched."""
        mark = _MARK + self.is_causal
        rows = [
            [begin, end, self.first, mark]
            for begin, end in zip(self.begins, self.ends, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.int32, device=device).reshape(-1, 1, 1, 4)


def key_ranges_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    device: Any = "cpu",
    allow_is_causal_skip: bool = True,
    use_vmap: bool = False,
    allow_is_bidirectional_skip: bool = True,
    config: Any = None,
    **others: Any,
) -> torch.Tensor | None:
    """The mask function that transformers asks; None where each query sees all before it,
    unless it says that it needs a mask then, too.

    A model that needs one reads it, too, and is given a mask of all queries and keys. A
    switched one is not: its indexers are served by ranges. Nor is one whose cache has room
    for more keys, for whose sake transformers asks so of any model, unless it has indexers.

    Raises:
        ValueError: the mask is more than causality and padding.
    """
    first = int(q_offset)
    total = first + q_length
    padding = None if attention_mask is None else attention_mask[:, :total]
    runs = None if padding is None else _runs(padding)
    is_causal = mask_function is not bidirectional_mask_function
    may_skip = allow_is_causal_skip if is_causal else allow_is_bidirectional_skip
    may_read = kv_length == total or hasattr(config, "index_topk")
    is_read = not may_skip and may_read and not is_switched(config)
    is_other = mask_function is not causal_mask_function
    if is_other or kv_offset or is_read or (runs and runs.has_gaps):
        whole = sdpa_mask(
            batch_size=batch_size,
            q_length=q_length,
            kv_length=kv_length,
            q_offset=first,
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            allow_is_causal_skip=False,
            use_vmap=use_vmap,
            device=device,
        )
        ranges = _ranges_of(whole, f" (sliding_window = {local_size})" if local_size else "")
        return whole if is_read or ranges.seen is not None else ranges.as_mask(device)
    if runs is None:
        runs = _Runs([0] * batch_size, [total] * batch_size, False)
    begins, ends, _ = runs
    is_whole = total == kv_length and not any(begins) and all(end == total for end in ends)
    if is_whole and allow_is_causal_skip:
        return None
    return KeyRanges(begins, ends, first, True).as_mask(device)


def read_ranges(mask: Any, batch: int, queries: int, keys: int, is_causal: bool) -> KeyRanges:
    """What an attention function is handed as its mask.

    A query whose own key is masked is padding: what comes out for it is nobody's concern.

    Args:
        mask: None, what `key_ranges_mask` gave, or a mask of the caller's:
            ``[batch or 1, 1, queries, keys]`` of bool, or of numbers to be added.
        is_causal: what None means.
    """
    if mask is None:
        first = keys - queries if is_causal else keys
        return KeyRanges([0] * batch, [keys] * batch, first, is_causal)
    if not isinstance(mask, torch.Tensor) or mask.ndim != 4:
        kind = (
            f"of {mask.ndim} dimensions" if isinstance(mask, torch.Tensor) else type(mask).__name__
        )
        raise ValueError(f"attention_mask: must be None or a tensor of 4 dimensions, not {kind}")
    if mask.dtype == torch.int32 and mask.shape[1:] == (1, 1, 4):
        rows = mask[:, 0, 0].tolist()
        if len(rows) == batch and all(row[3] - _MARK in (0, 1) for row in rows):
            begins, ends = [row[0] for row in rows], [row[1] for row in rows]
            first, mark = rows[0][2:] if rows else (0, _MARK)
            return KeyRanges(begins, ends, first, mark > _MARK)
    if mask.shape[0] not in (1, batch) or mask.shape[2:] != (queries, keys):
        wanted = batch, 1, queries, keys
        raise ValueError(f"attention_mask = {tuple(mask.shape)}: must be {wanted}")
    return _ranges_of(mask.expand(batch, -1, -1, -1))


def _ranges_of(mask: torch.Tensor, hint: str = "") -> KeyRanges:
    """The ranges that a mask of queries and keys spells; ValueError if it spells none."""
    seen = _as_bool(mask)
    if seen.shape[1] != 1:
        raise ValueError(f"attention_mask = {tuple(mask.shape)}: must be one mask for all heads")
    seen = seen[:, 0]
    queries, keys = seen.shape[1:]
    if 0 in seen.shape:
        return KeyRanges([0] * len(seen), [0] * len(seen), 0, True)
    anyhow = seen.any(1)
    begins, ends, has_gaps = _runs(anyhow)
    # A row that its request's end does not cut ends with its own token.
    last = torch.where(seen.any(2), keys - 1 - seen.flip(2).int().argmax(2), -1)
    first = int((last - torch.arange(queries, device=mask.device)).max())
    key = torch.arange(keys, device=mask.device)
    own = torch.arange(first, first + queries, device=mask.device)[:, None]
    spelled = anyhow[:, None] & (key <= own)
    # What a row without keys gives is nobody's concern.
    if not torch.equal(spelled & seen.any(2, keepdim=True), seen):
        raise ValueError(f"attention_mask: must be causal, but for padding{hint}")
    is_causal = queries == 1 or any(first < end - 1 for end in ends)
    return KeyRanges(begins, ends, first, is_causal, anyhow if has_gaps else None)


def _as_bool(mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        raise ValueError(f"attention_mask.dtype = {mask.dtype}: must be bool or floating point")
    seen = mask == 0
    if not bool((seen | (mask <= torch.finfo(mask.dtype).min / 2)).all()):
        raise ValueError("attention_mask: must be 0 or the least number: biases are not served")
    return seen


class _Runs(NamedTuple):
    """Where the keys that requests see begin and end, and whether others are in between."""

    begins: list[int]
    ends: list[int]
    has_gaps: bool


def _runs(seen: torch.Tensor) -> _Runs:
    """Those of ``[batch, keys]``."""
    begins, counts = seen.int().argmax(1), seen.sum(1)
    ends = torch.where(counts > 0, seen.shape[1] - seen.flip(1).int().argmax(1), begins)
    return _Runs(begins.tolist(), ends.tolist(), not torch.equal(ends - begins, counts))
