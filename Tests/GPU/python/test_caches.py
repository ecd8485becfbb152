# SPDX-License-Identifier: Apache-2.0
"""Tokens into caches of CUDA tensors and out of them."""

import ml_dtypes
import numpy as np
import pytest
from cuda_array import CudaArray

from mla_prefill import concat_and_cache_mla, gather_and_maybe_dequant_cache


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_caching(dtype):
    random = np.random.default_rng(0)
    latents, k_pe = (random.normal(size=(5, width)).astype(ml_dtypes.bfloat16) for width in (64, 16))
    slots, kind = np.array([3, -1, 8, 0, 5]), np.dtype(getattr(ml_dtypes, dtype))
    scale = 0.25 if dtype == "float8_e4m3fn" else None
    right = np.zeros((3, 4, 80), kind)
    concat_and_cache_mla(latents, k_pe, right, slots, scale)
    cache = CudaArray(np.zeros((3, 4, 80), kind))
    tensors = CudaArray(latents), CudaArray(k_pe), cache
    concat_and_cache_mla(*tensors, CudaArray(slots), scale)
    assert cache.numpy().tobytes() == right.tobytes()
    for bad, text in (
        (slots, "slot_mapping.device"),
        (CudaArray(slots.astype(np.float32)), "slot_mapping: must be of int64"),
        (CudaArray(slots.reshape(5, 1)), "slot_mapping: must have one dimension"),
        (CudaArray(np.arange(6)), "num_slots = 6"),
        ([0, 1], "slot_mapping"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            concat_and_cache_mla(*tensors, bad, scale)


def int32(values):
    return np.array(values, np.int32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_gathering(dtype):
    random = np.random.default_rng(0)
    cache = random.normal(size=(7, 4, 80)).astype(ml_dtypes.bfloat16).astype(getattr(ml_dtypes, dtype))
    scale = 0.25 if dtype == "float8_e4m3fn" else None
    table, offsets, starts = int32([[6, 0, 3], [1, -1, -1]]), int32([0, 9, 12]), int32([2, 0])
    right = np.zeros((14, 64), ml_dtypes.bfloat16), np.zeros((14, 16), ml_dtypes.bfloat16)
    gather_and_maybe_dequant_cache(cache, right[0], table, offsets, starts, scale, k_pe=right[1])
    dst, k_pe = (CudaArray(np.zeros_like(rows)) for rows in right)
    there = [CudaArray(numbers) for numbers in (table, offsets, starts)]
    gather_and_maybe_dequant_cache(CudaArray(cache), dst, *there, scale, k_pe=k_pe)
    assert dst.numpy().tobytes() == right[0].tobytes() and right[0].any()
    assert k_pe.numpy().tobytes() == right[1].tobytes() and right[1].any()
    given = dict(kv_cache=CudaArray(cache), dst=CudaArray(np.zeros((14, 80), ml_dtypes.bfloat16)), cache_scale=scale)
    given |= dict(zip(("block_table", "cu_seq_lens", "seq_starts"), there, strict=True))
    for name, bad, text in (
        ("block_table", table, "block_table.device"),
        ("block_table", CudaArray(table.astype(np.int64)), "block_table: must be of int32"),
        ("block_table", CudaArray(table[0]), "block_table: must have two dimensions"),
        ("block_table", CudaArray(table[:1]), "block_table: has 1 rows, must have one for each of the 2"),
        ("block_table", None, "block_table = NULL"),
        ("block_table", [[6, 0, 3], [1]], "block_table"),
        ("cu_seq_lens", offsets, "cu_seq_lens.device"),
        ("cu_seq_lens", CudaArray(offsets.astype(np.int64)), "cu_seq_lens: must be of int32"),
        ("cu_seq_lens", CudaArray(offsets[:, None]), "cu_seq_lens: must have one dimension"),
        ("cu_seq_lens", CudaArray(offsets[:0]), "cu_seq_lens: is empty"),
        ("block_table", CudaArray(table[:, :0]), "block_table = 0x"),
        ("seq_starts", CudaArray(int32([2, 0, 0])), "seq_starts: has 3 rows, must have one for each of the 2"),
        ("seq_starts", CudaArray(starts[:1]), "seq_starts: has 1 rows, must have one for each of the 2"),
        ("dst", np.zeros((14, 80), ml_dtypes.bfloat16), "dst.device"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            gather_and_maybe_dequant_cache(**{**given, name: bad})
    gather_and_maybe_dequant_cache(**given)
    assert given["dst"].numpy()[:, :64].tobytes() == right[0].tobytes()


def test_a_request_a_block():
    """Without a table, from the beginning."""
    cache = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    dst = CudaArray(np.zeros((7, 3), np.float32))
    gather_and_maybe_dequant_cache(CudaArray(cache), dst, None, CudaArray(int32([0, 5, 7])))
    assert dst.numpy().tobytes() == np.concatenate([cache[0], cache[1, :2]]).tobytes()
