# SPDX-License-Identifier: Apache-2.0
"""Functions that are no backend's."""

import math
from typing import Any

from mla_prefill import _core, _devices, _tensors
from mla_prefill._choices import code_of
from mla_prefill._untraced import untraced

#: MLA_CAUSAL_* by name.
_CAUSAL = {"start": 1, "end": 2}


@untraced
def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: float | None = None,
    causal: str | None = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    k_begin: Any = None,
    k_count: Any = None,
    out: Any = None,
    return_lse: bool = False,
    output_scale: Any = None,
) -> Any:
    """Attention in one call, without a backend or metadata.

    Tensors have 3 dimensions, requests one after the other, or all have 4, a request for
    each element of the batch, as torch's ``scaled_dot_product_attention`` has them. They are
    torch's, numpy's (bf16 from ``ml_dtypes``) or any with ``__dlpack__``, on the CPU, read
    in place whatever their strides, as long as none is negative and the last one is 1: a
    transposed view costs nothing. The GIL is released.

    Args:
        q: ``[rows, heads, dim]`` or ``[batch, heads, rows, dim]`` of bf16, fp16 or fp32.
        k: ``[keys, kv_heads, dim]`` or ``[batch, kv_heads, keys, dim]``, the type of q.
            ``kv_heads`` divides ``heads``: head h looks at ``h // (heads // kv_heads)``.
        v: ``[keys, kv_heads, v_dim]`` or ``[batch, kv_heads, keys, v_dim]``, likewise; may
            be a view of ``k``.
        scale: multiplies the scores; None: ``1 / sqrt(dim)``.
        causal: "start": query i of a request sees the keys up to i; "end": those up to
            ``i + keys - queries``, so that the last query sees all; None: all keys.
        cu_seqlens_q: ``[requests + 1]`` offsets into the rows of q, from 0, a tensor or
            sequence of integers; None: all rows are one request's.
        cu_seqlens_k: likewise, into the rows of k and v; None: those of ``cu_seqlens_q``,
            if k has as many rows as q; all rows for each request without
            ``cu_seqlens_q`` or with ``k_begin`` or ``k_count``.
        k_begin: ``[requests]`` the first of its keys that a request sees, likewise; None:
            from the first one. With 4 dimensions too: padding. Requests may share keys.
        k_count: ``[requests]`` how many it sees from there, likewise; None: all. With 4
            dimensions too: a cache that is not full.
        out: ``[rows, heads, v_dim]`` or ``[batch, heads, rows, v_dim]`` of bf16, fp16 or
            fp32 to write into, or of fp8 with an ``output_scale``; may be strided, and must
            be known to be writable: JAX's arrays are not. None: a new tensor of q's kind,
            device and type, or of fp8, 0 in rows of no request; one of 4 dimensions is, as
            torch's own attention gives it, the transposed view of a dense ``[batch, rows,
            heads, v_dim]``, but for libraries beside torch and numpy.
        return_lse: whether to return the log-sum-exp as well.
        output_scale: the output is divided by it; with a float8_e4m3fn ``out`` only and
            always: a number, or a tensor of one.

    Returns:
        ``out``, or ``(out, lse)`` with lse ``[heads, rows]`` or ``[batch, heads, rows]``
        float32, natural logarithm, -inf for a query without keys, whose output is 0, and
        for rows of no request.

    Raises:
        TypeError, ValueError: an argument breaks a rule; the text names it, and nothing
            has been written.
    """
    mask = 0 if causal is None else code_of(causal, _CAUSAL, "causal")
    with_lse = _core.flag(return_lse, "return_lse")
    result, lse = out, empty_lse(q) if with_lse else None
    if out is None:
        result = empty_out(q, v, None if output_scale is None else _tensors.QUANTIZED)
    if scale is None:
        scale = default_scale(q)
    _core.attention(
        q, k, v, result, lse, scale, mask, cu_seqlens_q, cu_seqlens_k, k_begin, k_count,
        output_scale, out is None,
    )  # fmt: skip
    if out is None:
        result = _tensors.finished(q, result)
    return (result, _tensors.finished(q, lse)) if with_lse else result


def empty_out(q: Any, v: Any, dtype: str | None = None) -> Any:
    """What ``attention`` writes into without an ``out``."""
    shape = _tensors.shape_of(q, "q")[:-1] + _tensors.shape_of(v, "v")[-1:]
    return _tensors.empty_attention(q, shape, dtype)


def empty_lse(q: Any) -> Any:
    """The same for its log-sum-exp, and for what it refuses."""
    shape = _tensors.shape_of(q, "q")
    return _tensors.empty(q, shape[1::-1] if len(shape) == 3 else shape[:-1] or (0,), "float32")


def default_scale(q: Any) -> float:
    """``attention``'s without a ``scale``."""
    shape = _tensors.shape_of(q, "q")
    return 1 / math.sqrt(shape[-1]) if shape and shape[-1] > 0 else 1.0


@untraced
def merge_attn_states(
    output: Any,
    prefix_output: Any,
    prefix_lse: Any,
    suffix_output: Any,
    suffix_lse: Any,
    output_lse: Any = None,
    prefill_tokens_with_context: int | None = None,
    output_scale: Any = None,
) -> None:
    """Merges the attention of the same tokens to two disjoint sets of keys, in place.

    An lse of +inf counts as -inf (no keys); two empty sides give 0 and -inf.

    Args:
        output: ``[tokens, heads, v_head_dim]`` of bf16, fp16, fp32, or fp8_e4m3 with
            an ``output_scale``; may be ``prefix_output`` or ``suffix_output`` itself. It
            and ``output_lse`` must be known to be writable: JAX's arrays are not. On the CPU
            or a CUDA device, where all the others must be too; there the work is put on
            torch's or CuPy's current stream, or the default one.
        prefix_output: the same shape, of the suffix's dtype.
        prefix_lse: ``[heads, tokens]`` float32.
        suffix_output: the same shape, of the prefix's dtype.
        suffix_lse: ``[heads, tokens]`` float32.
        output_lse: ``[heads, tokens]`` float32, or None.
        prefill_tokens_with_context: tokens from this one on have no prefix; None: all have.
        output_scale: the output is divided by it; with an fp8 output only and always.

    Raises:
        TypeError, ValueError: an argument breaks a rule; the text names it.
    """
    _core.merge_attn_states(
        output,
        prefix_output,
        prefix_lse,
        suffix_output,
        suffix_lse,
        output_lse,
        prefill_tokens_with_context,
        output_scale,
        *_devices.place_of(output),
    )
