# SPDX-License-Identifier: Apache-2.0
"""The gradient of attention from its log-sum-exp, of torch's operators."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch

#: Scores that are in memory at once, of all heads: 64 MiB of each of four tensors.
_MOST_SCORES = 1 << 24


class _Request(NamedTuple):
    """Where a request's rows are: an index into the tensors, then rows of q and of k and v."""

    batch: tuple[int, ...]
    queries: slice
    keys: slice


def attention_gradient(
    grad_out: Any,
    grad_lse: Any,
    q: Any,
    k: Any,
    v: Any,
    out: Any,
    lse: Any,
    scale: float,
    causal: str | None = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    k_begin: Any = None,
    k_count: Any = None,
) -> tuple[Any, Any, Any]:
    """(grad_q, grad_k, grad_v), computed in float32, of the inputs' types.

    Args:
        grad_out, grad_lse: of ``out`` and ``lse``; None: 0. All others are what ``attention``
            took and gave.
    """
    inputs = q, k, v
    sums = [tensor.new_zeros(tensor.shape, dtype=torch.float32) for tensor in inputs]
    requests = _requests(q, k, cu_seqlens_q, cu_seqlens_k, k_begin, k_count)
    by_head = [_by_head(tensor) for tensor in (*inputs, *sums)]
    q, k, v, grad_q, grad_k, grad_v = by_head
    out = _by_head(out)
    grad_out = torch.zeros_like(out) if grad_out is None else _by_head(grad_out)
    for batch, queries, keys in requests:
        rows = *batch, slice(None), queries
        columns = *batch, slice(None), keys
        _add_request(
            [grad_out[rows], None if grad_lse is None else grad_lse[rows]],
            [q[rows], k[columns], v[columns], out[rows], lse[rows]],
            [grad_q[rows], grad_k[columns], grad_v[columns]],
            scale,
            causal,
        )
    return tuple(total.to(tensor.dtype) for total, tensor in zip(sums, inputs, strict=True))


def _by_head(tensor: Any) -> Any:
    """[..., heads, rows, dim] of either form."""
    return tensor.transpose(0, 1) if tensor.ndim == 3 else tensor


def _requests(
    q: Any, k: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, k_begin: Any, k_count: Any
) -> Iterator[_Request]:
    has_batch = q.ndim == 4
    num_keys = k.shape[-2 if has_batch else 0]
    if has_batch:
        queries = [slice(0, q.shape[2])] * q.shape[0]
    elif cu_seqlens_q is None:
        queries = [slice(0, q.shape[0])]
    else:
        queries = _slices(cu_seqlens_q)
    if cu_seqlens_k is not None:
        keys = _slices(cu_seqlens_k)
    elif cu_seqlens_q is not None and k_begin is None and k_count is None:
        keys = queries
    else:
        keys = [slice(0, num_keys)] * len(queries)
    begins = [0] * len(queries) if k_begin is None else k_begin.tolist()
    counts = [None] * len(queries) if k_count is None else k_count.tolist()
    for place, (rows, columns, begin, count) in enumerate(
        zip(queries, keys, begins, counts, strict=True)
    ):
        first = columns.start + begin
        end = columns.stop if count is None else first + count
        yield _Request((place,) if has_batch else (), rows, slice(first, end))


def _slices(offsets: Any) -> list[slice]:
    return [slice(begin, end) for begin, end in pairwise(offsets.tolist())]


def _add_request(
    grads: list[Any], tensors: list[Any], sums: list[Any], scale: float, causal: str | None
) -> None:
    """Adds a request's part, a block of its queries after the other; tensors are
    [heads, rows, dim]."""
    (grad_out, grad_lse), (q, k, v, out, lse) = grads, tensors
    (num_heads, num_queries, _), (num_kv_heads, num_keys, _) = q.shape, k.shape
    if num_queries == 0 or num_keys == 0:
        return
    k, v = k.float(), v.float()
    block = max(1, _MOST_SCORES // (num_heads * num_keys))
    offset = num_keys - num_queries if causal == "end" else 0
    for begin in range(0, num_queries, block):
        end = min(begin + block, num_queries)
        seen = num_keys if causal is None else min(max(end + offset, 0), num_keys)
        rows = slice(begin, end)

        def grouped(tensor: Any, rows: slice = rows) -> Any:
            """[kv_heads, heads of each, rows, ...]"""
            return tensor[:, rows].float().unflatten(0, (num_kv_heads, -1))

        hidden = None
        if causal is not None:
            last = torch.arange(begin, end, device=q.device)[:, None] + offset
            hidden = torch.arange(seen, device=q.device) > last
        block_q, block_grad, sum_ = grouped(q), grouped(grad_out), grouped(lse)
        scores = torch.einsum("ghid,gjd->ghij", block_q, k[:, :seen]) * scale
        weights = torch.exp(scores - sum_[..., None])
        if hidden is not None:
            weights.masked_fill_(hidden, 0)
        inner = torch.einsum("ghiv,gjv->ghij", block_grad, v[:, :seen])
        mean = (block_grad * grouped(out)).sum(-1)
        if grad_lse is not None:
            mean = mean - grouped(grad_lse)
        grad_scores = weights * (inner - mean[..., None]) * scale
        sums[0][:, rows] += torch.einsum("ghij,gjd->ghid", grad_scores, k[:, :seen]).flatten(0, 1)
        sums[1][:, :seen] += torch.einsum("ghij,ghid->gjd", grad_scores, block_q)
        sums[2][:, :seen] += torch.einsum("ghij,ghiv->gjv", weights, block_grad)
