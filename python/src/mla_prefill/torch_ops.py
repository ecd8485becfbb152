# SPDX-License-Identifier: Apache-2.0
"""Operators of torch's: ``torch.ops.mla_prefill.attention``, ``.layer`` and the indexer's.

Importing this module registers them. Unlike the functions, inside which torch.compile breaks
its graph, they are part of one: of ``torch.compile(fullgraph=True)``, of ``torch.export`` with
any length dynamic, of ``make_fx`` and ``torch.jit.trace``.

``attention(q, k, v, scale=None, causal=None, cu_seqlens_q=None, cu_seqlens_k=None,
k_begin=None, k_count=None) -> (out, lse)`` is `mla_prefill.attention`, with tensors for all
that is a sequence there, and has a gradient, once, of ``out`` and ``lse`` with respect to q, k
and v.

``layer(q, kv_c_normed, k_pe, handle, v_head_dim, kv_cache=None, block_table=None,
query_start_loc=None, context_lens=None, output_scale=None, k_pe_cache=None,
context_starts=None, block_table_rows=None, context_only=False, topk_indices=None,
new_tokens_cached=False) -> out`` is `MLAPrefillLayer.forward`, with tensors likewise, of the
layer that `handle_of` has made the handle for, whose ``v_head_dim`` must be told;
``layer_with_lse`` takes the same and gives ``(out, lse)``, which `merge_attn_states` asks for.
Neither has a gradient.

A handle is a number in a tensor, since that is what all of these can stand: a graph that was
compiled for one layer serves the others, where a number by itself would be a constant of it,
and an exported program can be saved, and runs in another process once a layer of that number is
there. Modules hold it as a buffer; one that has moved to a device is waited for in each call.

``index_store(k, index_cache, slot_mapping, format="plain", scale_format="float32",
hadamard=False)``, which writes into ``index_cache``, and ``index_select(q, weights, index_cache,
block_table, query_start_loc, context_lens, topk, visible_keys=None, format="plain",
quantize_q=False, scale_format="float32", hadamard=False, first_row=0, num_rows=0) ->
topk_indices`` are `mla_prefill.indexer`'s, with tensors likewise.

``attention`` and the indexer run on the CPU, a layer where its weights were, on a CUDA device too.
"""

import re
from collections.abc import Callable
from functools import cache
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.autograd import forward_ad

from mla_prefill import _core, _tensors, indexer, ops
from mla_prefill._attention_gradient import attention_gradient
from mla_prefill.layer import MLAPrefillLayer

_REQUESTS = (
    "Tensor? cu_seqlens_q=None, Tensor? cu_seqlens_k=None, Tensor? k_begin=None, "
    "Tensor? k_count=None"
)
_OPTIONS = f"float? scale=None, str? causal=None, {_REQUESTS}"
_BATCH = (
    "Tensor? kv_cache=None, Tensor? block_table=None, Tensor? query_start_loc=None, "
    "Tensor? context_lens=None, float? output_scale=None, Tensor? k_pe_cache=None, "
    "Tensor? context_starts=None, Tensor? block_table_rows=None, bool context_only=False, "
    "Tensor? topk_indices=None, bool new_tokens_cached=False"
)
_LAYER = (
    "Tensor q, Tensor? kv_c_normed, Tensor? k_pe, Tensor handle, SymInt v_head_dim, " + _BATCH
)
_KEYS = 'str format="plain", '
_ROUNDING = 'str scale_format="float32", bool hadamard=False'
_SELECTION = (
    f"Tensor? visible_keys=None, {_KEYS}bool quantize_q=False, {_ROUNDING}, "
    "SymInt first_row=0, SymInt num_rows=0"
)
_SCHEMAS = (
    f"attention(Tensor q, Tensor k, Tensor v, {_OPTIONS}) -> (Tensor, Tensor)",
    "attention_backward(Tensor? grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, "
    f"Tensor out, Tensor lse, float scale, str? causal=None, {_REQUESTS})"
    " -> (Tensor, Tensor, Tensor)",
    f"layer({_LAYER}) -> Tensor",
    f"layer_with_lse({_LAYER}) -> (Tensor, Tensor)",
    f"index_store(Tensor k, Tensor(a!) index_cache, Tensor slot_mapping, {_KEYS}{_ROUNDING}) -> ()",
    "index_select(Tensor q, Tensor weights, Tensor index_cache, Tensor? block_table, "
    f"Tensor query_start_loc, Tensor? context_lens, SymInt topk, {_SELECTION}) -> Tensor",
)
#: Whoever made a layer holds it. 0 is what memory is that nobody has written.
_layers: "WeakValueDictionary[int, MLAPrefillLayer]" = WeakValueDictionary()
_numbers = count(1)


def handle_of(layer: MLAPrefillLayer, number: int | None = None) -> torch.Tensor:
    """What ``torch.ops.mla_prefill.layer`` knows a layer by.

    Args:
        layer: is not kept: hold it as long as the handle is used.
        number: of a handle in a program that another process has exported; None: one that no
            layer has had.

    Returns:
        An int64 tensor ``[]`` on the CPU. A layer may have several.

    Raises:
        TypeError: ``layer`` is no MLAPrefillLayer, or ``number`` no integer.
        ValueError: another layer has the number.
    """
    if not isinstance(layer, MLAPrefillLayer):
        raise TypeError(f"layer: must be an MLAPrefillLayer, not {type(layer).__name__}")
    if number is None:
        number = next(each for each in _numbers if _layers.setdefault(each, layer) is layer)
    elif _layers.setdefault(_core.integer(number, "number"), layer) is not layer:
        raise ValueError(f"number = {number}: is another layer's")
    return torch.tensor(number, device="cpu")


@cache
def _names(arguments: str) -> list[str]:
    return re.findall(r"(\w+)=", arguments)


def _named(arguments: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """Kernels get by their places what a schema names, up to the last that is no default."""
    return dict(zip(_names(arguments), values, strict=False))


def _attention(q: Any, k: Any, v: Any, *options: Any) -> Any:
    return ops.attention(q, k, v, **_named(_OPTIONS, options), return_lse=True)


def _imagined_attention(q: Any, k: Any, v: Any, *rest: Any) -> Any:
    return ops.empty_out(q, v), ops.empty_lse(q)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, Any]) -> None:
    q, k, v, scale, causal, *requests = inputs + (None,) * (9 - len(inputs))
    ctx.rest = ops.default_scale(q) if scale is None else scale, causal
    ctx.save_for_backward(q, k, v, *output, *requests)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Any, grad_lse: Any) -> tuple[Any, ...]:
    q, k, v, out, lse, *requests = ctx.saved_tensors
    none = (None,) * len(ctx.needs_input_grad)
    if grad_out is None and grad_lse is None:
        return none
    run = torch.ops.mla_prefill.attention_backward
    return *run(grad_out, grad_lse, q, k, v, out, lse, *ctx.rest, *requests), *none[3:]


def _imagined_backward(grad_out: Any, grad_lse: Any, q: Any, k: Any, v: Any, *rest: Any) -> Any:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (q, k, v))


def _layer(
    q: Any, kv_c_normed: Any, k_pe: Any, handle: Any, v_head_dim: int, *batch: Any, lse: Any = None
) -> Any:
    layer = _layers.get(int(handle))
    if layer is None:
        raise ValueError(f"handle = {int(handle)}: is that of no layer that somebody holds")
    if layer.v_head_dim != v_head_dim:
        raise ValueError(f"v_head_dim = {v_head_dim}: must be the layer's, {layer.v_head_dim}")
    return layer.forward(q, kv_c_normed, k_pe, **_named(_BATCH, batch), lse=lse)


def _layer_with_lse(q: Any, *rest: Any) -> Any:
    # Rows beyond the batch's are no run's.
    lse = ops.empty_lse(q).fill_(-torch.inf)
    return _layer(q, *rest, lse=lse), lse


def _imagined_layer(
    q: Any, kv_c_normed: Any, k_pe: Any, handle: Any, v_head_dim: int, *batch: Any
) -> Any:
    is_quantized = _named(_BATCH, batch).get("output_scale") is not None
    dtype = _tensors.QUANTIZED if is_quantized else None
    return _tensors.empty(q, (q.shape[0], q.shape[1], v_head_dim), dtype)


def _imagined_layer_with_lse(q: Any, *rest: Any) -> Any:
    return _imagined_layer(q, *rest), ops.empty_lse(q)


def _imagined_index_store(k: Any, index_cache: Any, *rest: Any) -> None:
    pass


def _index_select(
    q: Any, weights: Any, cache: Any, table: Any, loc: Any, lens: Any, topk: int, *rest: Any
) -> Any:
    named = _named(_SELECTION, rest)
    return indexer.select(q, weights, cache, table, loc, lens, topk=topk, **named)


def _imagined_index_select(
    q: Any, weights: Any, cache: Any, table: Any, loc: Any, lens: Any, topk: int, *rest: Any
) -> Any:
    return q.new_empty((q.shape[0], topk), dtype=torch.int32)


def _keep_nothing(ctx: Any, inputs: Any, output: Any) -> None:
    pass


def _refusing(text: str) -> Callable[..., None]:
    def backward(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(text)

    return backward


def _autograd_kernel(name: str, keep: Callable[..., None], backward: Callable[..., Any]) -> Any:
    """What runs wherever gradients might be wanted. torch.library's own takes longer, and drops
    the tangents of torch.func.jvp."""
    run = getattr(torch.ops.mla_prefill, name).default

    def forward(*inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return run(*inputs)

    methods = {"forward": forward, "setup_context": keep, "backward": backward}
    members = {key: staticmethod(method) for key, method in methods.items()}
    function: Any = type(name, (torch.autograd.Function,), members)

    def kernel(*inputs: Any) -> Any:
        is_recorded = forward_ad._current_level >= 0 or (
            torch.is_grad_enabled()
            and any(tensor.requires_grad for tensor in inputs if isinstance(tensor, torch.Tensor))
        )
        if not is_recorded:
            return forward(*inputs)
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(f"{name}: has no rule for gradients in torch.func")
        return function.apply(*inputs)

    return kernel


def _register() -> torch.library.Library:
    """Not by torch.library.custom_op, whose wrapper takes longer."""
    library = torch.library.Library("mla_prefill", "DEF")
    no_second = _refusing("attention: has a first gradient, and no second")
    no_gradient = "has no gradient; call it under torch.no_grad()"
    of_layer = _refusing(f"layer: {no_gradient}")
    of_layer_with_lse = _refusing(f"layer_with_lse: {no_gradient}")
    cpu, cpu_and_cuda = ("CPU",), ("CPU", "CUDA")
    kernels: list[tuple[Any, ...]] = [
        (cpu, _attention, _imagined_attention, _keep, _backward),
        (cpu, attention_gradient, _imagined_backward, _keep_nothing, no_second),
        (cpu_and_cuda, _layer, _imagined_layer, _keep_nothing, of_layer),
        (cpu_and_cuda, _layer_with_lse, _imagined_layer_with_lse, _keep_nothing, of_layer_with_lse),
        # Nothing of theirs could have a gradient.
        (cpu, indexer.store, _imagined_index_store, None, None),
        (cpu, _index_select, _imagined_index_select, None, None),
    ]
    for schema, (keys, run, imagine, keep, backward) in zip(_SCHEMAS, kernels, strict=True):
        name = schema.partition("(")[0]
        library.define(schema)
        for key in keys:
            library.impl(name, run, key)
        if keep:
            library.impl(name, _autograd_kernel(name, keep, backward), "Autograd")
        torch.library.register_fake(f"mla_prefill::{name}", imagine, lib=library)
    return library


#: Operators are there as long as it is.
_library = _register()
