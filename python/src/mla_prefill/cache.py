# SPDX-License-Identifier: Apache-2.0
"""Tokens into a paged cache and out of it."""

from typing import Any

from mla_prefill import _core, _devices
from mla_prefill._choices import code_of
from mla_prefill._untraced import untraced

#: MLA_CACHE_FORMAT_* by name.
CACHE_FORMATS = {"plain": 0, "fp8_ds_mla": 1}


@untraced
def concat_and_cache_mla(
    kv_c_normed: Any,
    k_pe: Any,
    kv_cache: Any,
    slot_mapping: Any,
    cache_scale: Any = None,
    cache_format: str = "plain",
    k_pe_cache: Any = None,
) -> None:
    """Puts tokens into a paged cache, in place, on the CPU or a CUDA device.

    On a device, where all tensors must be, the work is put on torch's or CuPy's current
    stream, or the default one.

    Args:
        kv_c_normed: ``[tokens, kv_lora_rank]`` of bf16, fp16 or fp32.
        k_pe: ``[tokens, rope]`` of the same type; None where rope is 0: where a plain
            cache is no wider than ``kv_c_normed``, and with fp8_ds_mla.
        kv_cache: ``[num_blocks, block_size, kv_lora_rank + rope]`` of bf16, fp16, fp32 or
            fp8_e4m3, or ``[num_blocks, block_size, 656]`` of fp8_ds_mla, or ``[num_tokens,
            width]``, blocks of one token; fp8 may come as uint8, and a dimension for one
            head may stand before the last. Its memory must be known to be writable: JAX's
            arrays are not.
        slot_mapping: a tensor or sequence of integers: token i goes to block
            ``slot_mapping[i] // block_size`` at ``slot_mapping[i] % block_size``, nowhere if
            it is -1; of tokens with the same slot the last has it. May be shorter than
            ``kv_c_normed``. With a cache on a CUDA device a dense int64 tensor there, in
            which no two tokens have the same slot.
        cache_scale: what a plain fp8 cache's elements will be multiplied by. None: 1.
        cache_format: "plain" or "fp8_ds_mla", as in `MLAPrefillLayer`.
        k_pe_cache: ``[num_blocks, block_size, rope]`` of any of these types, where ``k_pe``
            goes, with a ``kv_cache`` of ``[num_blocks, block_size, kv_lora_rank]``; writable
            as well. None: it goes to ``kv_cache``.

    Raises:
        TypeError, ValueError: an argument breaks a rule; the text names it, and nothing
            has been written.
    """
    scale = 1 if cache_scale is None else cache_scale
    code = code_of(cache_format, CACHE_FORMATS, "cache_format")
    _core.concat_and_cache_mla(
        kv_c_normed,
        k_pe,
        kv_cache,
        slot_mapping,
        scale,
        code,
        k_pe_cache,
        *_devices.place_of(kv_cache),
    )


@untraced
def gather_and_maybe_dequant_cache(
    kv_cache: Any,
    dst: Any,
    block_table: Any,
    cu_seq_lens: Any,
    seq_starts: Any = None,
    cache_scale: Any = None,
    cache_format: str = "plain",
    k_pe_cache: Any = None,
    k_pe: Any = None,
) -> None:
    """Brings requests' tokens from a paged cache into rows, dequantized.

    For engines that project latents themselves, chunk of the context by chunk; on the CPU or
    a CUDA device. On a device, where all tensors must be, the work is put on torch's or
    CuPy's current stream, or the default one.

    Args:
        kv_cache: as ``concat_and_cache_mla`` has it; it may be read-only.
        dst: ``[rows, kv_lora_rank + rope]`` of bf16, fp16 or fp32 to write into: each token's
            latent, then its k_pe; with fp8_ds_mla ``[rows, 576]``, or ``[rows, 512]`` for
            latents alone. Rows behind those of ``cu_seq_lens`` stay as they are. It and
            ``k_pe`` must be known to be writable: JAX's arrays are not.
        block_table: ``[requests, max_blocks]``: position p of request i is in block
            ``block_table[i, p // block_size]`` at ``p % block_size``. A tensor of int32, read
            in place, or of int64, or a list of lists that need not be equally long; more rows
            than requests and entries that nobody needs are ignored. None: request i has block
            i alone, there being one for each. With a cache on a CUDA device an int32 tensor
            there; rows whose token is in no block stay as they are.
        cu_seq_lens: ``[requests + 1]`` offsets into the rows of ``dst``, from 0, a tensor or
            sequence of integers: those from ``cu_seq_lens[i]`` to ``cu_seq_lens[i + 1]`` are
            request i's. With a cache on a CUDA device a dense int32 tensor there.
        seq_starts: ``[requests]``, likewise: the position of each request's first token. None:
            0.
        cache_scale: what a plain fp8 cache's elements are multiplied by. None: 1.
        cache_format: "plain" or "fp8_ds_mla", as in `MLAPrefillLayer`.
        k_pe_cache: ``[num_blocks, block_size, rope]`` of any of these types: where k_pe is, with a
            ``kv_cache`` of ``[num_blocks, block_size, kv_lora_rank]``. None: in ``kv_cache``.
        k_pe: ``[rows, rope]``, the type of ``dst``: where k_pe goes, ``dst`` being ``[rows,
            kv_lora_rank]``. None: to ``dst``.

    Raises:
        TypeError, ValueError: an argument breaks a rule; the text names it, and nothing
            has been written.
    """
    scale = 1 if cache_scale is None else cache_scale
    code = code_of(cache_format, CACHE_FORMATS, "cache_format")
    _core.gather_and_maybe_dequant_cache(
        kv_cache,
        dst,
        block_table,
        cu_seq_lens,
        seq_starts,
        scale,
        code,
        k_pe_cache,
        k_pe,
        *_devices.place_of(kv_cache),
    )
