# SPDX-License-Identifier: Apache-2.0
"""Tokens out of a paged cache."""

import ml_dtypes
import numpy as np
import pytest
from reference import TYPES
from reference_layer import CACHE_TYPES, FP8, LayerProblem

from mla_prefill import gather_and_maybe_dequant_cache

CONTEXT = [30, 0, 13]


def problem_of(**keywords):
    return LayerProblem([1, 1, 1], CONTEXT, **keywords)


def expected_of(problem, dtype):
    """What lies in the slots of each request, by numpy."""
    flat = problem.kv_cache.reshape(-1, problem.rank + problem.rope)
    rows = flat[[slot for slots in problem.slots for slot in slots]]
    if problem.cache_dtype != "float8_e4m3fn":
        return rows.astype(TYPES[dtype])
    return (rows.astype(np.float32) * np.float32(problem.cache_scale)).astype(TYPES[dtype])


def same(got, expected):
    assert got.view(np.uint8).tobytes() == np.ascontiguousarray(expected).view(np.uint8).tobytes()


@pytest.mark.parametrize("cache_dtype", CACHE_TYPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_dtype(dtype, cache_dtype):
    scale = 0.02 if cache_dtype == "float8_e4m3fn" else 1.0
    problem = problem_of(cache_dtype=cache_dtype, cache_scale=scale)
    dst = np.full((45, 48), 7, TYPES[dtype])
    gather_and_maybe_dequant_cache(
        problem.kv_cache, dst, problem.block_table, [0, 30, 30, 43], cache_scale=scale
    )
    same(dst[:43], expected_of(problem, dtype))
    assert (dst[43:] == 7).all()


def test_a_chunk_of_each_context():
    """From anywhere on, into two tensors, from two, by tables of every kind."""
    problem = problem_of()
    rows = np.concatenate([problem.cached[0][9:24], problem.cached[2][2:]])
    latents, k_pe = (np.ascontiguousarray(part) for part in np.split(problem.kv_cache, [40], -1))
    ragged = problem.block_table
    table = np.full((4, 7), 2**31 - 1, np.int64)
    for i, blocks in enumerate(ragged):
        table[i, : len(blocks)] = blocks
    for given in (ragged, table, table.astype(np.int32), np.asfortranarray(table.astype(np.int32))):
        dst, rope = np.zeros((26, 40), np.float32), np.zeros((26, 8), np.float32)
        numbers = dict(cu_seq_lens=np.array([0, 15, 15, 26]), seq_starts=np.array([9, -3, 2], np.int32))
        gather_and_maybe_dequant_cache(problem.kv_cache, dst, given, **numbers, k_pe=rope)
        same(dst, rows[:, :40])
        same(rope, rows[:, 40:])
        whole = np.zeros((26, 48), np.float32)
        gather_and_maybe_dequant_cache(latents, whole, given, **numbers, k_pe_cache=k_pe)
        same(whole, rows)


def test_blocks_of_requests_and_of_tokens():
    random = np.random.default_rng(1)
    dense = random.standard_normal((2, 9, 12)).astype(np.float32)
    dst = np.zeros((7, 12), np.float32)
    gather_and_maybe_dequant_cache(dense, dst, None, [0, 4, 7], [5, 0])
    same(dst, np.concatenate([dense[0, 5:], dense[1, :3]]))
    tokens = dense.reshape(18, 12)
    gather_and_maybe_dequant_cache(tokens, dst, [[17, 2, 3, 4], [5, 5, 0]], [0, 4, 7])
    same(dst, tokens[[17, 2, 3, 4, 5, 5, 0]])
    heads = dense[:, :, None]
    gather_and_maybe_dequant_cache(heads, dst, None, [0, 4, 7], [5, 0])
    same(dst, np.concatenate([dense[0, 5:], dense[1, :3]]))


@pytest.mark.parametrize("dtype", TYPES)
def test_fp8_ds_mla(dtype):
    random = np.random.default_rng(2)
    cache = np.zeros((3, 4, 656), np.uint8)
    codes = random.integers(0, 256, (3, 4, 512), np.uint8)
    scales = random.choice(np.array([0.25, 0.3, 1e-3], np.float32), (3, 4, 4))
    k_pe = random.standard_normal((3, 4, 64)).astype(ml_dtypes.bfloat16)
    cache[..., :512], cache[..., 512:528] = codes, scales.view(np.uint8)
    cache[..., 528:] = k_pe.view(np.uint8)
    latents = codes.view(FP8).astype(np.float32) * np.repeat(scales, 128, -1)
    rows = np.concatenate([latents, k_pe.astype(np.float32)], -1)[[2, 0]].reshape(8, 576)[1:7]
    for width in (576, 512):
        dst = np.zeros((6, width), TYPES[dtype])
        gather_and_maybe_dequant_cache(
            cache, dst, [[2, 0]], [0, 6], [1], cache_format="fp8_ds_mla"
        )
        np.testing.assert_array_equal(
            dst.astype(np.float32), rows[:, :width].astype(TYPES[dtype]).astype(np.float32)
        )


def test_refusals():
    problem = problem_of()
    dst = np.full((43, 48), 7, np.float32)
    right = dict(
        kv_cache=problem.kv_cache,
        dst=dst,
        block_table=problem.block_table,
        cu_seq_lens=[0, 30, 30, 43],
        seq_starts=[0, 0, 0],
    )
    half = [[*problem.block_table[0][:-1], 99], [], problem.block_table[2]]
    for name, value, text in (
        ("block_table", half, r"^block_table\[0\]\[3\] = 99: must be 0 to "),
        ("block_table", problem.block_table[:2], "^block_table: has 2 rows, must have one for each of the 3"),
        ("block_table", [[2**40]] * 3, r"^block_table\[0\]\[0\] = 1099511627776: must fit 32 bits"),
        ("block_table", 7, "^block_table: must be a tensor or sequence of integers, not int"),
        ("block_table", None, "^block_table = NULL: must not be NULL unless"),
        ("cu_seq_lens", [], "^cu_seq_lens: is empty, must have one entry for each request"),
        ("cu_seq_lens", [0, 30, 29, 43], r"^cu_seq_lens\[2\] = 29: must not be below"),
        ("cu_seq_lens", [0, 30, 30, 44], r"^cu_seq_lens\[3\] = 44: must not be beyond the 43 rows of dst"),
        ("cu_seq_lens", [[0, 30, 30, 43]], "^cu_seq_lens"),
        ("seq_starts", [0, 0], "^seq_starts: has 2 entries, must have one less than the 4 of cu_seq_lens"),
        ("seq_starts", [-1, 0, 0], r"^seq_starts\[0\] = -1: must be 0 to"),
        ("dst", np.zeros((43, 47), np.float32), r"^dst\.shape\[1\] = 47: must be 48, the width of kv_cache"),
        ("dst", np.zeros((43, 48), FP8), r"^dst\.dtype = .*: must be float32, float16 or bfloat16|^dst\.dtype"),
        ("k_pe", np.zeros((43, 8), np.float32), r"^k_pe\.shape\[1\] = 8: must be 0"),
        ("cache_scale", -1, "^cache_scale = -1"),
        ("cache_format", "fp4", "^cache_format"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            gather_and_maybe_dequant_cache(**{**right, name: value})
        assert (dst == 7).all()
    gather_and_maybe_dequant_cache(**right)
    same(dst, expected_of(problem, "float32"))
