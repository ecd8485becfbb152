# SPDX-License-Identifier: Apache-2.0
"""Switching a model's MLA attention to these kernels, and back."""

from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from mla_prefill.transformers.classes import refusal_of_module
from mla_prefill.transformers.latents import IMPLEMENTATION, LatentExpansion
from mla_prefill.transformers.registration import register
from mla_prefill.transformers.selection import IndexSelection

#: Under transformers' root, so that its log settings hold for it.
logger = logging.get_logger("transformers.mla_prefill")


def enable(model: PreTrainedModel) -> None:
    """Switches all MLA attention of a model to `MLAPrefillLayer`, over its latents, and its
    indexers, where it has any (DeepSeek Sparse Attention), to `mla_prefill.indexer`.

    ``generate``, caches and everything else stay transformers'. Packed weights take the
    memory of another ``kv_b_proj`` each. They are packed anew when ``kv_b_proj`` or its
    weights are others or have been written to, but for writes through ``.data``: enable
    such a model again.

    Raises:
        TypeError: not a model of transformers.
        ValueError: there is no MLA attention, or there is some that is not served; the text
            says why, and nothing has changed.
    """
    _require_model(model)
    modules = [(name, each) for name, each in model.named_modules() if hasattr(each, "kv_b_proj")]
    if not modules:
        raise ValueError(f"model = {type(model).__name__}: must have attention with a kv_b_proj")
    for name, module in modules:
        reason = refusal_of_module(module)
        if reason is not None:
            kind = type(module).__name__
            raise ValueError(f"model.{name} = {kind}: cannot be switched: {reason}")
    register()
    for _, module in modules:
        held = _expansion(module)
        previous = held.previous if held else module.config._attn_implementation
        module.expand_kv = LatentExpansion(module, previous)
        if getattr(module, "indexer", None) is not None:
            module.indexer.forward = IndexSelection(module)
    _set_implementations(model, {id(each.config): IMPLEMENTATION for _, each in modules})
    if any(module.config._attn_implementation != IMPLEMENTATION for _, module in modules):
        disable(model)
        kind = type(model).__name__
        raise ValueError(f"model = {kind}: cannot be switched: its attention cannot be chosen")
    kinds = sorted({type(module).__name__ for _, module in modules})
    logger.info(f"mla_prefill serves {len(modules)} modules: {', '.join(kinds)}")


def disable(model: PreTrainedModel) -> None:
    """Gives a model the attention back that it had before `enable`; others stay as they are.

    Raises:
        TypeError: not a model of transformers.
    """
    _require_model(model)
    switched = [(each, held) for each in model.modules() if (held := _expansion(each))]
    for module, _ in switched:
        del module.expand_kv
        indexer = getattr(module, "indexer", None)
        # Whoever has put another there since keeps it.
        if indexer is not None and isinstance(vars(indexer).get("forward"), IndexSelection):
            del indexer.forward
    _set_implementations(model, {id(each.config): held.previous for each, held in switched})


def _require_model(model: Any) -> None:
    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"model: must be a transformers.PreTrainedModel, not {type(model).__name__}"
        )


def _expansion(module: Any) -> LatentExpansion | None:
    held = vars(module).get("expand_kv")
    return held if isinstance(held, LatentExpansion) else None


def _set_implementations(model: PreTrainedModel, wanted: dict[int, str]) -> None:
    """Sets those of models by their configurations, which modules share with them."""
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and id(part.config) in wanted:
            part.set_attn_implementation(wanted[id(part.config)])
