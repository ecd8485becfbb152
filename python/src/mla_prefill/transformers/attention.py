# SPDX-License-Identifier: Apache-2.0
"""The attention function that transformers calls by its name."""

from typing import Any

import torch

from mla_prefill.transformers.latents import LatentExpansion
from mla_prefill.transformers.masks import read_ranges


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers' interface has it.

    Args:
        query: ``[batch, heads, queries, dim]``.
        key, value: ``[batch, key heads, keys, dim]``; of a module that is switched on
            latents and their part with rope, ``[batch, 1, keys, ...]``.

    Returns:
        ``[batch, queries, heads, v_head_dim]``, and None for the probabilities.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    batch, _, queries, dim = query.shape
    ranges = read_ranges(attention_mask, batch, queries, key.shape[2], causal)
    scale = dim**-0.5 if scaling is None else float(scaling)
    expansion = module.__dict__.get("expand_kv")
    if isinstance(expansion, LatentExpansion):
        return expansion.attention(query, key, value, ranges, scale), None
    raise ValueError(f"module = {type(module).__name__}: must have been switched by enable()")
