# SPDX-License-Identifier: Apache-2.0
"""The whole MLA prefill layer in one call."""

from enum import Enum
from typing import Any

from mla_prefill import _core, _devices, _tensors
from mla_prefill._choices import code_of
from mla_prefill._dtypes import dtype_code, dtype_text
from mla_prefill._untraced import tell_torch, untraced
from mla_prefill.cache import CACHE_FORMATS
from mla_prefill.configuration import backend_name

#: MLA_LAYER_ALGORITHM_* by name.
_ALGORITHMS = {"auto": 0, "up_projected": 1, "absorbed": 2}


class MLAPrefillLayer:
    """From queries, latents and a paged cache to the attention output.

    Gathering, up-projection by ``kv_b_proj`` and the softmax over a request's context
    and new tokens are inside; keys and values never exist as whole tensors. An object
    never changes: any number of threads may run one at once, and the GIL is released.

    Tensors are torch's, numpy's (bf16 and fp8 from ``ml_dtypes``) or any with
    ``__dlpack__``, read in place whatever their strides, as long as none is negative and the
    last one is 1. They are where ``kv_b_proj`` is: on the CPU or a CUDA device. There, calls
    are put on torch's or CuPy's current stream, or else the default one, ``kv_lora_rank`` must
    be a multiple of 64 and the heads' dimensions of 8, and ``algorithm`` does not matter.

    Args:
        scale: multiplies the scores.
        kv_b_proj: ``[num_heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank]`` of
            bf16, fp16, fp32 or, with ``weight_scales``, fp8_e4m3, as checkpoints hold it.
            Packed, in ``dtype``: 4 bytes a number where a kernel multiplies fp32, 2 for each
            bf16 that it multiplies, of which AMX makes two of an fp16 and three of an fp32.
            On a CUDA device copied there.
        backend: a member of the registry or its name, whose way to split keys is used;
            None: the one that is chosen for ``dtype`` and the dimensions. Where a
            registered class or vtable stands behind it, keys and values are made for
            its own runs.
        dtype: of ``q``, ``kv_c_normed`` and ``k_pe``: bf16, fp16 or fp32, as torch,
            numpy or a text names it; on a CUDA device not fp32. None: that of ``kv_b_proj``,
            unless it is fp8.
        cache_dtype: of ``kv_cache``: bf16, fp16, fp32 or fp8_e4m3. None: ``dtype``.
        cache_scale: what a plain fp8 cache's elements are multiplied by. None: 1.
        workspace_bound: most bytes that a forward call uses beside its tensors;
            None: as much as is fastest, on a CUDA device at most a gibibyte, where it is taken
            in the stream's order. Bits do not depend on it, but where a registered backend
            computes, or cuDNN.
        weight_scales: float32 or float8_e8m0fnu, what an fp8 ``kv_b_proj`` is multiplied
            by: a number or ``[1]`` for all of it, ``[rows]`` or ``[rows, 1]`` for each of its
            rows, or ``[rows / 128, kv_lora_rank / 128]``, both rounded up, for blocks of
            128 x 128, or of ``weight_block``. On a CUDA device a tensor there.
        weight_block: rows and columns of ``kv_b_proj`` that have a scale. None: what the
            shape of ``weight_scales`` says.
        cache_format: "plain", or "fp8_ds_mla": vLLM's 656 bytes a token, four scales for
            512 latents of fp8 and 64 values of k_pe as bf16, which a model without rope
            leaves unread.
        algorithm: "up_projected": keys and values are made of all latents; "absorbed":
            queries are taken to the latents instead, which is less work for few new
            tokens on a long context; "auto": whichever costs less for a request. Both keep
            the keys' part of the weights a second time.
    """

    @untraced
    def __init__(
        self,
        num_heads: int,
        scale: float,
        kv_lora_rank: int,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        v_head_dim: int,
        kv_b_proj: Any,
        *,
        backend: Enum | str | None = None,
        dtype: Any = None,
        cache_dtype: Any = None,
        cache_scale: Any = None,
        workspace_bound: int | None = None,
        weight_scales: Any = None,
        cache_format: str = "plain",
        algorithm: str = "auto",
        weight_block: tuple[int, int] | None = None,
    ) -> None:
        """Packs the weights; they are not kept.

        Raises:
            TypeError, ValueError: an argument breaks a rule, which the text names, or CUDA
                cannot be used.
            MemoryError, RuntimeError: the device has no memory left, or CUDA fails.
        """
        tell_torch()
        block_rows, block_columns = _rows_and_columns(weight_block)
        device_type, device_id, _ = _devices.place_of(kv_b_proj)
        _devices.await_contents(kv_b_proj)
        self.num_heads = num_heads
        self.v_head_dim = v_head_dim
        self._layer = _core.Layer(
            num_heads=num_heads,
            scale=scale,
            kv_lora_rank=kv_lora_rank,
            qk_nope_head_dim=qk_nope_head_dim,
            qk_rope_head_dim=qk_rope_head_dim,
            v_head_dim=v_head_dim,
            kv_b_proj=kv_b_proj,
            backend=backend_name(backend),
            dtype=_optional_dtype(dtype, "dtype", "float32, float16 or bfloat16"),
            cache_dtype=_optional_dtype(
                cache_dtype, "cache_dtype", "float32, float16, bfloat16 or float8_e4m3fn"
            ),
            cache_scale=1 if cache_scale is None else cache_scale,
            workspace_bound=0 if workspace_bound is None else workspace_bound,
            algorithm=code_of(algorithm, _ALGORITHMS, "algorithm"),
            cache_format=code_of(cache_format, CACHE_FORMATS, "cache_format"),
            weight_scales=weight_scales,
            weight_block_rows=block_rows,
            weight_block_columns=block_columns,
            device_type=device_type,
            device_id=device_id,
        )
        #: "cpu" or "cuda:1", where its tensors must be.
        self.device = _devices.device_name((device_type, device_id))

    @untraced
    def forward(
        self,
        q: Any,
        kv_c_normed: Any,
        k_pe: Any,
        kv_cache: Any = None,
        block_table: Any = None,
        query_start_loc: Any = None,
        context_lens: Any = None,
        out: Any = None,
        lse: Any = None,
        output_scale: Any = None,
        k_pe_cache: Any = None,
        context_starts: Any = None,
        block_table_rows: Any = None,
        context_only: bool = False,
        topk_indices: Any = None,
        new_tokens_cached: bool = False,
    ) -> Any:
        """Causal attention of each request's new tokens to its context and to themselves.

        Args:
            q: ``[tokens, num_heads, qk_nope_head_dim + qk_rope_head_dim]``, rope applied.
            kv_c_normed: ``[tokens, kv_lora_rank]``, the type of ``q``.
            k_pe: ``[tokens, qk_rope_head_dim]``, the type of ``q``, rope applied; None
                where that dimension is 0.
            kv_cache: ``[num_blocks, block_size, kv_lora_rank + qk_rope_head_dim]`` of
                ``cache_dtype``, or ``[num_blocks, block_size, 656]`` of fp8_ds_mla, or
                ``[num_tokens, width]``, blocks of one token; fp8 may come as uint8, and a
                dimension for one head may stand before the last. None where nobody has
                context.
            block_table: ``[requests, max_blocks]``: token t of request i lies in block
                ``block_table[i, t // block_size]`` at ``t % block_size``. A tensor of int32,
                read in place, or of int64, or a list of lists that need not be equally long;
                more rows than requests and entries around a context are ignored. None:
                request i has block i alone, there being one for each request, as in a dense
                cache ``[requests, tokens, width]``; or nobody has context. For a layer on a CUDA
                device an int32 tensor there, whose entries must be blocks; what follows of
                integers are numbers of the host's.
            query_start_loc: ``[requests + 1]`` row offsets of the new tokens, from 0, a
                tensor or sequence of integers. None: all rows are one request's.
            context_lens: ``[requests]`` tokens in the cache, likewise; None: nobody has
                context.
            out: ``[tokens, num_heads, v_head_dim]`` of bf16, fp16 or fp32 to write into, or
                of fp8 with an ``output_scale``; may be strided; None: a new tensor of q's
                kind, device and type, or of fp8, 0 in rows beyond the batch's. It and
                ``lse`` must be known to be writable: JAX's arrays are not.
            lse: ``[num_heads, tokens]`` float32 to write the log-sum-exp into, natural
                logarithm; None: it is not wanted.
            output_scale: the output is divided by it; with a float8_e4m3fn ``out`` only
                and always: a number, or a tensor of one.
            k_pe_cache: ``[num_blocks, block_size, qk_rope_head_dim]``: the rotary keys of a
                cache whose ``kv_cache`` is ``[num_blocks, block_size, kv_lora_rank]``, of
                whatever type, fp8 multiplied by ``cache_scale``; not with fp8_ds_mla. None:
                they are in ``kv_cache``.
            context_starts: ``[requests]``, likewise: where a context begins in its blocks,
                behind padding, say: t above is ``context_starts[i]`` for the first token of
                request i. None: 0.
            block_table_rows: ``[requests]``, likewise: request i's row of ``block_table``,
                SGLang's ``req_pool_indices`` of a ``req_to_token``, say. None: row i.
            context_only: every new token attends to all of its request's context and not
                to new tokens, whose ``kv_c_normed`` and ``k_pe`` may be None and are not
                looked at; 0 and an lse of -inf without context. ``merge_attn_states`` merges
                what parts of a context give.
            topk_indices: ``[tokens, topk]``: the positions of the keys that each token attends
                to instead of all (DeepSeek Sparse Attention), counted from its request's
                first token on, context and new tokens alike, at most its own; -1 anywhere is
                none, and neither order nor repetition has an effect. A tensor of int32, read
                in place, or of int64, or a list of lists; more rows than tokens are ignored. A
                token without any gives 0 and an lse of -inf. On the CPU, by one of the
                library's own backends, and not with the ``algorithm`` "up_projected". None: all.
            new_tokens_cached: the new tokens are in ``kv_cache``, too, behind their request's
                context, and are read there: ``kv_c_normed`` and ``k_pe`` may be None and are
                not looked at. As ``topk_indices`` on the CPU, by one of the library's own
                backends.

        Returns:
            ``out``.

        Raises:
            TypeError, ValueError: an argument breaks a rule; the text names it, and
                nothing has been written.
            MemoryError, RuntimeError: the device has no memory left, or CUDA fails.
        """
        is_on_cpu = self.device == _devices.CPU
        rows = (_tensors if is_on_cpu else _devices).rows_of(q)
        result = self._new_out(q, rows, output_scale is not None) if out is None else out
        offsets = [0, rows] if query_start_loc is None else query_start_loc
        _core.Layer.forward(
            self._layer, q, kv_c_normed, k_pe, kv_cache, block_table, offsets, context_lens,
            result, lse, output_scale, k_pe_cache, context_starts, block_table_rows, context_only,
            topk_indices, new_tokens_cached,
            out is None, None if is_on_cpu else _devices.current_stream(q),
        )  # fmt: skip
        return _tensors.finished(q, result) if out is None else out

    def _new_out(self, q: Any, rows: int, is_quantized: bool) -> Any:
        shape = rows, self.num_heads, self.v_head_dim
        dtype = _tensors.QUANTIZED if is_quantized else None
        if self.device == _devices.CPU:
            return _tensors.empty(q, shape, dtype)
        # The device's rows beyond the batch nobody clears.
        return _devices.filled(q, shape, dtype, 0)

    @untraced
    def workspace_size(
        self,
        query_start_loc: Any,
        context_lens: Any = None,
        context_only: bool = False,
        topk_indices: Any = None,
        new_tokens_cached: bool = False,
    ) -> int:
        """Bytes that ``forward`` uses for this batch, on the CPU at the present number of threads.

        Raises:
            TypeError, ValueError: an argument breaks a rule, or the batch does not fit
                ``workspace_bound``; the text names it.
        """
        return _core.Layer.workspace_size(
            self._layer, query_start_loc, context_lens, context_only, topk_indices,
            new_tokens_cached,
        )  # fmt: skip


def _optional_dtype(dtype: Any, name: str, types: str) -> int:
    """The library judges which of its types may stand here."""
    if dtype is None:
        return 0
    code = dtype_code(dtype)
    if code == 0:
        raise ValueError(f"{name} = {dtype_text(dtype)}: must be {types}")
    return code


def _rows_and_columns(block: Any) -> tuple[int, int]:
    if block is None:
        return 0, 0
    if not isinstance(block, (tuple, list)) or len(block) != 2:
        raise TypeError(f"weight_block: must be a pair of integers, not {type(block).__name__}")
    rows, columns = (_core.integer(part, "weight_block") for part in block)
    return rows, columns
