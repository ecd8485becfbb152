# SPDX-License-Identifier: Apache-2.0
"""The choice of keys for one module's attention (DeepSeek Sparse Attention)."""

import inspect
from typing import Any

import torch

from mla_prefill import indexer
from mla_prefill._untraced import untraced
from mla_prefill.transformers.index_scores import IndexScores
from mla_prefill.transformers.latents import IMPLEMENTATION
from mla_prefill.transformers.masks import KeyRanges, read_ranges


class IndexSelection:
    """Stands in the place of an indexer's ``forward``, and lets it do all but score keys.

    What it gives are positions of keys, ascending, then -1, where the indexer's own has
    masked keys behind those that a query sees. Under any other attention implementation
    the indexer's class does as it does.
    """

    def __init__(self, module: Any) -> None:
        """
        Args:
            module: the attention, which has the ``indexer``.
        """
        self.module = module

    def __call__(self, *arguments: Any, **named: Any) -> torch.Tensor:
        if self.module.config._attn_implementation == IMPLEMENTATION:
            return self.selected(*arguments, **named)
        return type(self.module.indexer).forward(self.module.indexer, *arguments, **named)

    @untraced
    def selected(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """``[batch, queries, topk]`` of int32, of what the indexer's forward is called with."""
        module = self.module.indexer
        forward = type(module).forward
        given = inspect.signature(forward).bind(module, *arguments, **named).arguments
        queries = given["hidden_states"].shape[1]
        keys = _IndexKeys(given.get("cache"), queries, given["attention_mask"])
        given.update(cache=keys, attention_mask=keys.stand_in)
        return forward(given.pop("self"), **given)


class _IndexKeys:
    """A cache as indexers know it: they put their keys in and are given `IndexScores`."""

    def __init__(self, cache: Any, queries: int, mask: torch.Tensor) -> None:
        self._cache = cache
        self._queries = queries
        self._mask = mask
        #: What the indexer is handed as its mask.
        self.stand_in = torch.zeros(())

    def update_indexer(self, keys: torch.Tensor, *layer: Any) -> IndexScores:
        if self._cache is not None:
            keys = self._cache.update_indexer(keys, *layer)
        return IndexScores(keys, self._queries, self.stand_in, self._choose)

    def _choose(
        self, queries: torch.Tensor, weights: torch.Tensor, keys: torch.Tensor, topk: int
    ) -> torch.Tensor:
        batch, count = queries.shape[:2]
        ranges = read_ranges(self._mask[:, None], batch, count, keys.shape[1], True)
        return select(queries, weights, keys, topk, ranges)


def select(
    queries: torch.Tensor,
    weights: torch.Tensor,
    keys: torch.Tensor,
    topk: int,
    ranges: KeyRanges,
) -> torch.Tensor:
    """The keys with the highest scores for each query.

    Args:
        queries: ``[batch, queries, heads, head_dim]``.
        weights: ``[batch, queries, heads]``.
        keys: ``[batch, keys, head_dim]``.

    Returns:
        ``[batch, queries, topk]`` positions among ``keys``, ascending, then -1; -1 alone for
        padding.
    """
    batch, count = queries.shape[:2]
    chosen = torch.full((batch, count, topk), -1, dtype=torch.int32, device=queries.device)
    if ranges.seen is not None:
        for request, (own, seen, rows) in enumerate(ranges.alone(count)):
            alone = slice(request, request + 1)
            among = select(queries[alone, rows], weights[alone, rows], keys[alone, seen], topk, own)
            places = seen.int()[among.clamp(min=0)]
            chosen[alone, rows] = torch.where(among < 0, -1, places)
        return chosen
    spans = ranges.spans(count)
    is_uniform = all(span == spans[0] for span in spans)
    requests = [slice(None)] if is_uniform else [slice(each, each + 1) for each in range(batch)]
    for alone, span in zip(requests, spans, strict=False):
        rows, same = slice(span.row, span.row + span.rows), len(spans[alone])
        if not span.rows:
            continue
        found = indexer.select(
            q=queries[alone, rows].flatten(0, 1),
            weights=weights[alone, rows].flatten(0, 1),
            index_cache=keys[alone, span.begin :],
            block_table=None,
            topk=topk,
            query_start_loc=[span.rows * request for request in range(same + 1)],
            context_lens=[span.key - span.begin] * same,
        )
        if span.begin:
            found = torch.where(found < 0, -1, found + span.begin)
        chosen[alone, rows] = found.unflatten(0, (same, span.rows))
    return chosen
