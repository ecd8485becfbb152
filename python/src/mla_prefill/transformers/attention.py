# SPDX-License-Identifier: Apache-2.0
"""The attention function that transformers calls by its name."""

from collections.abc import Callable
from typing import Any

import torch

import mla_prefill.torch_ops  # noqa: F401  registers torch.ops.mla_prefill
from mla_prefill.transformers.latents import LatentExpansion
from mla_prefill.transformers.masks import KeyRanges, read_ranges

#: What transformers may hand over that changes the result, and would be ignored here.
_UNSERVED = {
    "softcap": "capped scores",
    "s_aux": "attention sinks",
    "position_bias": "biases",
    "cu_seq_lens_q": "packed sequences",
}


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    indices: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers' interface has it.

    Args:
        query: ``[batch, heads, queries, dim]``.
        key, value: ``[batch, key heads, keys, dim]``; of a module that is switched on
            latents and their part with rope, ``[batch, 1, keys, ...]``.
        indices: of such a module, the keys that each query attends to instead of all,
            ``[batch, queries, any]`` of int32, -1 for none.

    Returns:
        ``[batch, queries, heads, v_head_dim]``, and None for the probabilities.

    Keys and values have gradients, latents have none.

    Raises:
        ValueError: what is asked for is not served; the text names the argument.
    """
    _refuse(query, key, value, dropout, sliding_window, others)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    batch, _, queries, dim = query.shape
    ranges = read_ranges(attention_mask, batch, queries, key.shape[2], causal)
    scale = dim**-0.5 if scaling is None else float(scaling)
    expansion = getattr(module, "expand_kv", None)
    attend: Callable[..., torch.Tensor] = _attention
    if isinstance(expansion, LatentExpansion):
        attend = expansion.attention
    elif indices is not None:
        model = getattr(getattr(module, "config", None), "model_type", type(module).__name__)
        raise ValueError(
            f"indices: must be None: {model} chooses keys by indexers, which "
            'attn_implementation="mla_prefill" alone does not serve: '
            "call mla_prefill.transformers.enable(model) instead"
        )
    chosen = () if indices is None else (indices,)
    if ranges.seen is None:
        return attend(query, key, value, ranges, scale, *chosen), None
    return _attend_to_seen(attend, query, key, value, ranges, scale, *chosen), None


def _attend_to_seen(
    attend: Callable[..., torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    ranges: KeyRanges,
    scale: float,
    *chosen: torch.Tensor,
) -> torch.Tensor:
    """A request after the other, by copies of the keys that are seen."""
    results, queries, keys = [], query.shape[2], key.shape[2]
    for request, (own, seen, rows) in enumerate(ranges.alone(queries)):
        alone = slice(request, request + 1)
        result = attend(
            query[alone, :, rows],
            key[alone, :, seen],
            value[alone, :, seen],
            own,
            scale,
            *(_places(each[alone, rows], seen, keys) for each in chosen),
        )
        out = query.new_zeros(1, queries, *result.shape[2:])
        results.append(out.index_copy(1, rows, result))
    return torch.cat(results)


def _places(indices: torch.Tensor, seen: torch.Tensor, keys: int) -> torch.Tensor:
    """Where keys come to lie among those that are seen; -1 stays."""
    places = torch.full((keys + 1,), -1, dtype=torch.int32, device=indices.device)
    places[seen] = torch.arange(len(seen), dtype=torch.int32, device=indices.device)
    return places[indices]


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ranges: KeyRanges, scale: float
) -> torch.Tensor:
    queries, keys = query.shape[2], key.shape[2]
    is_causal = ranges.is_causal and queries > 1
    total = ranges.first + queries
    if is_causal and total > keys:
        raise ValueError(
            f"attention_mask: must be causal: the last query's key is {total} of {keys}"
        )
    # Behind its own key a query sees nothing, be it padding or not.
    ends = [total] * len(query) if is_causal else ranges.ends
    counts = [max(end - begin, 0) for begin, end in zip(ranges.begins, ends, strict=True)]
    is_whole = all(count == keys for count in counts)
    begin, count = (
        None if is_whole else torch.tensor(side, dtype=torch.int32, device=query.device)
        for side in (ranges.begins, counts)
    )
    result, _ = torch.ops.mla_prefill.attention(
        query, key, value, scale, "end" if is_causal else None, None, None, begin, count
    )
    return result.transpose(1, 2)


def _refuse(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float,
    sliding_window: int | None,
    others: dict[str, Any],
) -> None:
    """ValueError for what is not served."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.device.type != "cpu":
            raise ValueError(f"{name}.device = {tensor.device}: must be cpu")
    if dropout > 0:
        raise ValueError(f"dropout = {dropout}: must be 0: set the model to eval()")
    if sliding_window is not None and key.shape[2] > sliding_window:
        raise ValueError(
            f"sliding_window = {sliding_window}: must be None, or no less than the keys"
        )
    for name, what in _UNSERVED.items():
        if others.get(name) is not None:
            raise ValueError(f"{name}: must be None: {what} are not served")
