# SPDX-License-Identifier: Apache-2.0
"""The whole layer with numpy's tensors."""

import ml_dtypes
import numpy as np
import pytest
from recorded import recorded
from reference import TYPES, check_from_many_threads
from reference_layer import CACHE_TYPES, FP8, LayerProblem, relative, stored_as_fp8_ds_mla
from test_dlpack import Exporter

from mla_prefill import MLAPrefillLayer, concat_and_cache_mla


def layer_for(problem, **options):
    if problem.cache_dtype != problem.dtype:
        options = {"cache_dtype": problem.cache_dtype, "cache_scale": problem.cache_scale} | options
    return MLAPrefillLayer(**problem.dimensions, kv_b_proj=problem.kv_b_proj, **options)


def lse_for(problem):
    return np.zeros((problem.heads, problem.queries[-1]), np.float32)


@pytest.mark.parametrize("dtype", TYPES)
def test_fresh_and_continued_requests(dtype):
    problem = LayerProblem([7, 1, 0, 40, 3], [50, 0, 9, 16, 8], dtype=dtype)
    lse = lse_for(problem)
    out = layer_for(problem).forward(**problem.tensors, lse=lse)
    assert out.dtype == problem.q.dtype
    problem.check(out, lse)


def test_quantized_output():
    problem = LayerProblem([7, 1, 40], [50, 300, 0], dtype="bfloat16")
    layer = layer_for(problem)
    exact = np.zeros((48, problem.heads, problem.dimensions["v_head_dim"]), np.float32)
    layer.forward(**problem.tensors, out=exact)
    product = exact * (np.float32(1) / np.float32(0.02))
    expected = product.clip(-448, 448).astype(ml_dtypes.float8_e4m3fn)
    out = layer.forward(**problem.tensors, output_scale=0.02)
    assert out.dtype == expected.dtype
    assert (out.view(np.uint8) == expected.view(np.uint8)).all()
    with pytest.raises(ValueError, match="output_scale = NULL: must be given with an fp8 output"):
        layer.forward(**problem.tensors, out=out)


def test_no_context_needs_no_cache():
    problem = LayerProblem([30, 4], [0, 0])
    layer = layer_for(problem)
    whole = layer.forward(**problem.tensors)
    problem.check(whole)
    fresh = (problem.q, problem.kv_c_normed, problem.k_pe)
    assert (layer.forward(*fresh, query_start_loc=problem.queries) == whole).all()
    # Without offsets all rows are one request's.
    one = LayerProblem([34], [0])
    out = layer_for(one).forward(one.q, one.kv_c_normed, one.k_pe)
    one.check(out)


def test_rows_beyond_the_batch():
    problem = LayerProblem([9, 4], [0, 0])
    q, latents, k_pe = (
        np.concatenate([t, np.full((3, *t.shape[1:]), np.nan, t.dtype)])
        for t in (problem.q, problem.kv_c_normed, problem.k_pe)
    )
    for _ in range(20):
        np.full(16 * 2 * 16, np.nan, np.float32)
    out = layer_for(problem).forward(q, latents, k_pe, query_start_loc=problem.queries)
    problem.check(out[:13])
    assert (out[13:] == 0).all()


def test_no_rotary_part():
    problem = LayerProblem([12], [20], rope=0)
    out = layer_for(problem).forward(**{**problem.tensors, "k_pe": None})
    problem.check(out)


def test_empty_batch():
    problem = LayerProblem([], [])
    out = layer_for(problem).forward(**problem.tensors)
    assert out.shape == (0, 2, 16)


@pytest.mark.parametrize("cache_dtype", CACHE_TYPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_cache_types(dtype, cache_dtype):
    scale = 0.02 if cache_dtype == "float8_e4m3fn" else 1.0
    problem = LayerProblem(
        [20, 5], [60, 33], dtype=dtype, cache_dtype=cache_dtype, cache_scale=scale
    )
    problem.check(layer_for(problem).forward(**problem.tensors))
    # What fills a cache stores what the problem has stored by numpy.
    filled = problem.kv_cache.copy()
    for rows, slots in zip(problem.cached, problem.slots, strict=True):
        filled.reshape(-1, filled.shape[-1])[slots] = 0
        concat_and_cache_mla(
            rows[:, : problem.rank], rows[:, problem.rank :], filled, slots, problem.cache_scale
        )
    np.testing.assert_array_equal(filled.view(np.uint8), problem.kv_cache.view(np.uint8))


def test_caches_with_a_dimension_of_one_head():
    problem = LayerProblem([9, 4], [30, 13])
    whole = problem.kv_cache[:, :, None]
    assert whole.ndim == 4
    problem.check(layer_for(problem).forward(**{**problem.tensors, "kv_cache": whole}))
    filled = np.zeros_like(whole)
    for rows, slots in zip(problem.cached, problem.slots, strict=True):
        concat_and_cache_mla(rows[:, : problem.rank], rows[:, problem.rank :], filled, slots)
        expected, stored = (t.reshape(-1, t.shape[-1])[slots] for t in (whole, filled))
        np.testing.assert_array_equal(stored, expected)
    for wrong in (problem.kv_cache[:, None], np.repeat(whole, 2, 2)):
        with pytest.raises(ValueError, match="kv_cache.ndim = 4: must be 2 or 3"):
            layer_for(problem).forward(**{**problem.tensors, "kv_cache": wrong})
        with pytest.raises(ValueError, match="kv_cache.ndim = 4: must be 2 or 3"):
            concat_and_cache_mla(problem.kv_c_normed, problem.k_pe, wrong, [0])


def test_unwanted_slots_stay():
    problem = LayerProblem([5], [3])
    cache = np.full((2, 4, problem.rank + problem.rope), 7, np.float32)
    concat_and_cache_mla(problem.kv_c_normed, problem.k_pe, cache, np.array([-1, 6, 1]))
    flat = cache.reshape(8, -1)
    for slot, token in ((6, 1), (1, 2)):
        expected = np.concatenate([problem.kv_c_normed[token], problem.k_pe[token]])
        np.testing.assert_array_equal(flat[slot], expected)
    assert (flat[[0, 2, 3, 4, 5, 7]] == 7).all()


@pytest.mark.parametrize("algorithm", ["auto", "up_projected", "absorbed"])
@pytest.mark.parametrize("dtype", TYPES)
def test_algorithms(dtype, algorithm):
    problem = LayerProblem([2, 30, 1], [300, 0, 77], dtype=dtype)
    lse = lse_for(problem)
    out = layer_for(problem, algorithm=algorithm).forward(**problem.tensors, lse=lse)
    problem.check(out, lse)


def test_algorithms_by_name():
    """One new token on a long context is what the absorbed form is for."""
    problem = LayerProblem([1], [2000], heads=16, rank=64, nope=64, value=64)
    results = {
        algorithm: layer_for(problem, algorithm=algorithm).forward(**problem.tensors).tobytes()
        for algorithm in ("auto", "up_projected", "absorbed")
    }
    assert results["auto"] == results["absorbed"] != results["up_projected"]


@pytest.mark.parametrize("dtype", TYPES)
def test_fp8_ds_mla(dtype):
    problem = LayerProblem([5, 20], [40, 13], rank=512, rope=64, nope=32, dtype=dtype)
    cache = stored_as_fp8_ds_mla(problem)
    # What is stored is what was given but for roundings.
    for rows, slots in zip(problem.cached, problem.slots, strict=True):
        assert relative(problem.kv_cache[slots, :512], rows[:, :512].astype(np.float64)) < 0.04
        assert relative(problem.kv_cache[slots, 512:], rows[:, 512:].astype(np.float64)) < 4e-3
    layer = layer_for(problem, cache_format="fp8_ds_mla")
    # With a dimension of one head, too, as some readers have it.
    for stored in (cache, cache.view(FP8), cache[:, :, None]):
        problem.check(layer.forward(**{**problem.tensors, "kv_cache": stored}))


@pytest.mark.parametrize("step", [1, 7, 32])
def test_chunked_equals_whole(step):
    whole = LayerProblem([75], [0], block_size=5, dtype="bfloat16")
    layer = layer_for(whole)
    lse = lse_for(whole)
    out = layer.forward(**whole.tensors, lse=lse)
    cache = np.full((15, 5, whole.rank + whole.rope), np.nan, ml_dtypes.bfloat16)
    table = np.random.default_rng(1).permutation(15).astype(np.int32)[None]
    for begin in range(0, 75, step):
        rows = slice(begin, min(begin + step, 75))
        chunk_lse = np.zeros((2, rows.stop - begin), np.float32)
        new = whole.kv_c_normed[rows], whole.k_pe[rows]
        chunk = layer.forward(
            whole.q[rows], *new, cache, table, context_lens=[begin], lse=chunk_lse
        )
        assert relative(chunk, out[rows].astype(np.float64)) <= 4e-3
        np.testing.assert_allclose(chunk_lse, lse[:, rows], rtol=0, atol=2e-3)
        slots = [int(table[0, t // 5]) * 5 + t % 5 for t in range(begin, rows.stop)]
        concat_and_cache_mla(*new, cache, slots)


def test_workspace_bound_bears_on_memory_only():
    problem = LayerProblem([300, 20], [40, 500], heads=8)
    free, bound = layer_for(problem), layer_for(problem, workspace_bound=400_000)
    batch = problem.queries, problem.context
    assert bound.workspace_size(*batch) <= 400_000 < free.workspace_size(*batch)
    assert (free.forward(**problem.tensors) == bound.forward(**problem.tensors)).all()
    with pytest.raises(ValueError, match=r"workspace_bound = 1000.*bytes"):
        layer_for(problem, workspace_bound=1000).forward(**problem.tensors)


TABLES = {
    "int32": lambda t: np.array(t, np.int32),
    "int64": lambda t: np.array(t, np.int64),
    "wider rows": lambda t: np.array([[*row, -9, -9] for row in t], np.int32)[:, : len(t[0])],
    "every second column": lambda t: np.repeat(np.array(t, np.int32), 2, 1)[:, ::2],
    "upside down": lambda t: np.array(t[::-1], np.int32)[::-1],
    "more rows": lambda t: np.array([*t, t[0]], np.int32),
    "DLPack": lambda t: Exporter(np.array(t, np.int32)),
    "rows of arrays": lambda t: [np.array(row, np.int32) for row in t],
    "uneven rows": lambda t: [t[0], t[1][:2]],
}


@pytest.mark.parametrize("kind", TABLES)
def test_block_tables(kind):
    problem = LayerProblem([3, 4], [40, 13])
    table = [problem.block_table[0], problem.block_table[1] + [-1] * 3]
    problem.check(
        layer_for(problem).forward(**{**problem.tensors, "block_table": TABLES[kind](table)})
    )


def test_strided_tensors_and_out():
    problem = LayerProblem([9, 14], [16, 3], dtype="bfloat16")
    layer = layer_for(problem)
    dense = layer.forward(**problem.tensors)
    wide = {
        name: np.concatenate([tensor, tensor], -1)[..., : tensor.shape[-1]]
        for name, tensor in problem.tensors.items()
        if isinstance(tensor, np.ndarray)
    }
    for tensor in wide.values():
        tensor.flags.writeable = False
    buffer = np.full((23, 2, 20), 7, np.float32)
    out = buffer[..., 2:18]
    assert layer.forward(**{**problem.tensors, **wide}, out=out) is out
    np.testing.assert_array_equal(out.astype(ml_dtypes.bfloat16), dense)
    assert (buffer[..., :2] == 7).all() and (buffer[..., 18:] == 7).all()


def test_threads_share_a_layer():
    problem = LayerProblem([60, 5], [30, 70])
    layer = layer_for(problem)
    check_from_many_threads(problem, lambda: layer.forward(**problem.tensors))


def test_recorded_step():
    data, metadata = recorded("dsv2_fresh")
    # Recorded as [rank, heads, nope + v].
    kv_b_proj = np.ascontiguousarray(data["kv_b_proj"].transpose(1, 2, 0).reshape(-1, 512))
    layer = MLAPrefillLayer(4, float(metadata["scale"]), 512, 128, 64, 128, kv_b_proj)
    lse = np.zeros((4, 251), np.float32)
    out = layer.forward(
        data["q"],
        data["kv_c_normed"],
        data["k_pe"],
        query_start_loc=data["query_start_loc"],
        lse=lse,
    )
    error = relative(out, data["out"].astype(np.float64))
    print(f"dsv2_fresh: relative L2 {error:.2e}, lse {np.abs(lse - data['lse']).max():.1e}")
    assert error <= 6e-3
    np.testing.assert_allclose(lse, data["lse"], rtol=0, atol=1e-2)
