# SPDX-License-Identifier: Apache-2.0
"""The layer on caches laid out as engines have them."""

import numpy as np
import pytest
from reference import TYPES
from reference_layer import CACHE_TYPES, LayerProblem
from test_layer import layer_for, lse_for
from test_layer_arguments import ERRORS, refused

from mla_prefill import concat_and_cache_mla

LENGTHS, CONTEXT = [7, 1, 0, 20], [50, 0, 9, 33]


def problem_of(cache_dtype, dtype="float32"):
    scale = 0.02 if cache_dtype == "float8_e4m3fn" else 1.0
    return LayerProblem(
        LENGTHS, CONTEXT, dtype=dtype, cache_dtype=cache_dtype, cache_scale=scale
    )


def filled(problem, cache, k_pe_cache, slots):
    """Puts a problem's contexts, a list of slots each, into a cache of another layout."""
    for rows, places in zip(problem.cached, slots, strict=True):
        latents, k_pe = rows[:, : problem.rank], rows[:, problem.rank :]
        concat_and_cache_mla(
            latents, k_pe, cache, places, problem.cache_scale, k_pe_cache=k_pe_cache
        )


def empty(problem, *shape):
    return np.full(shape, np.nan, CACHE_TYPES[problem.cache_dtype])


def two_tensors(problem, *shape):
    wide = empty(problem, *shape, problem.rank + problem.rope + 3)
    return wide[..., : problem.rank], wide[..., problem.rank + 1 : -2]


def check(problem, **layout):
    lse = lse_for(problem)
    problem.check(layer_for(problem).forward(**{**problem.tensors, **layout}, lse=lse), lse)


@pytest.mark.parametrize("cache_dtype", CACHE_TYPES)
@pytest.mark.parametrize("dtype", TYPES)
def test_two_tensors(dtype, cache_dtype):
    problem = problem_of(cache_dtype, dtype)
    cache, k_pe_cache = two_tensors(problem, *problem.kv_cache.shape[:2])
    filled(problem, cache, k_pe_cache, problem.slots)
    check(problem, kv_cache=cache, k_pe_cache=k_pe_cache)
    # With a dimension of one head, and fp8 as bytes.
    heads = cache[:, :, None], k_pe_cache[:, :, None]
    check(problem, kv_cache=heads[0], k_pe_cache=heads[1])
    if cache_dtype == "float8_e4m3fn":
        check(problem, kv_cache=cache.view(np.uint8), k_pe_cache=k_pe_cache.view(np.uint8))
        exact = k_pe_cache.astype(np.float32) * np.float32(problem.cache_scale)
        check(problem, kv_cache=cache, k_pe_cache=exact)


@pytest.mark.parametrize("cache_dtype", CACHE_TYPES)
def test_dense_caches_and_padding(cache_dtype):
    problem = problem_of(cache_dtype)
    starts = [9, 3, 0, 27]
    slots = [
        [request * 64 + start + token for token in range(count)]
        for request, (start, count) in enumerate(zip(starts, CONTEXT, strict=True))
    ]
    layout = {"block_table": None, "context_starts": starts}
    cache = empty(problem, 4, 64, problem.rank + problem.rope)
    filled(problem, cache, None, slots)
    check(problem, kv_cache=cache, **layout)
    cache, k_pe_cache = two_tensors(problem, 4, 64)
    filled(problem, cache, k_pe_cache, slots)
    check(problem, kv_cache=cache, k_pe_cache=k_pe_cache, **layout)
    # A table of blocks that are as long says the same.
    table = [[request] for request in range(4)]
    check(problem, kv_cache=cache, k_pe_cache=k_pe_cache, **{**layout, "block_table": table})


def table_of_tokens(problem, rows, starts, width=70):
    """A row of tokens' places for each of six requests, of which some are the problem's."""
    places = np.random.default_rng(3).permutation(6 * width).reshape(6, width)
    places[4] = np.sort(places[4])
    slots = [
        places[row, start : start + count].tolist()
        for row, start, count in zip(rows, starts, CONTEXT, strict=True)
    ]
    return places, slots


@pytest.mark.parametrize("kind", ["int32", "int64", "list", "columns apart"])
@pytest.mark.parametrize("width", [[], [1]], ids=["2d", "3d"])
def test_tables_of_tokens(width, kind):
    problem = problem_of("bfloat16")
    rows, starts = [4, 1, 5, 0], [0, 1, 2, 30]
    places, slots = table_of_tokens(problem, rows, starts)
    cache = empty(problem, places.size, *width, problem.rank + problem.rope)
    filled(problem, cache, None, slots)
    table = {
        "int32": places.astype(np.int32),
        "int64": places,
        "list": places.tolist(),
        "columns apart": np.repeat(places.astype(np.int32), 2, 1)[:, ::2],
    }[kind]
    check(
        problem,
        kv_cache=cache,
        block_table=table,
        context_starts=np.array(starts),
        block_table_rows=np.array(rows),
    )


@pytest.mark.parametrize("kind", [np.int32, np.int64, list])
def test_wrong_rows_of_tables_are_named(kind):
    table = [[0, 1, 2], [3, 4, 5], [0, 0, 0]]
    table = table if kind is list else np.array(table, kind)
    for rows in ([0, 3], [-1, 0], [0, 2**31 - 1]):
        given = {"block_table": table, "block_table_rows": rows}
        refused(r"block_table_rows\[[01]\] = ", ValueError, **given)


@pytest.mark.parametrize("name", ["context_starts", "block_table_rows"])
@pytest.mark.parametrize(
    "values", ["01", 3, [0, 0.5], [0], [0, 0, 0], np.zeros(2), [0, 1 << 40], np.zeros((1, 2), int)]
)
def test_wrong_numbers_are_named(name, values):
    refused(name, ERRORS, **{name: values})


def test_wrong_starts_are_named():
    refused("context_starts", ValueError, context_starts=[-1, 0])
    refused(r"context_starts\[0\] = 25: must be 0 to 24", ValueError, context_starts=[25, 0])
    refused(r"from context_starts\[0\] \(5\) on", ValueError, context_starts=[5, 0])


def test_tables_that_are_absent_or_empty():
    """Blocks for each request are there, by chance or on purpose: an empty table is a table."""
    problem = LayerProblem([7, 5], [20, 3], block_size=30)
    dense = problem.kv_cache[:2]
    assert len(problem.kv_cache) == 4
    layer_for(problem).forward(**{**problem.tensors, "kv_cache": dense, "block_table": None})
    tables = [[], []], np.zeros((2, 0), np.int32), np.zeros((2, 0), np.int64)
    for table in tables:
        refused("context_lens|max_blocks", ValueError, problem, kv_cache=dense, block_table=table)
    refused("block_table = NULL", ValueError, problem, block_table=None)
    rows = {"block_table": None, "block_table_rows": [0, 1]}
    refused("block_table_rows", ValueError, problem, kv_cache=dense, **rows)


def test_wrong_second_tensors_are_named():
    problem = LayerProblem([7, 5], [20, 3])
    cache, k_pe_cache = two_tensors(problem, *problem.kv_cache.shape[:2])
    for wrong in (k_pe_cache[:-1], k_pe_cache[:, :-1], k_pe_cache[..., :-1], k_pe_cache[0], "x"):
        refused("k_pe_cache", ERRORS, problem, kv_cache=cache, k_pe_cache=wrong)
        with pytest.raises(ERRORS, match="k_pe_cache"):
            concat_and_cache_mla(
                problem.kv_c_normed, problem.k_pe, cache, [0], k_pe_cache=wrong
            )
    refused("kv_cache", ValueError, problem, kv_cache=cache)
    refused("kv_cache", ValueError, problem, k_pe_cache=k_pe_cache)
    refused("kv_cache = NULL", ValueError, problem, kv_cache=None, k_pe_cache=k_pe_cache)
    k_pe_cache.flags.writeable = False
    with pytest.raises(ValueError, match="k_pe_cache: is read-only"):
        concat_and_cache_mla(
            problem.kv_c_normed, problem.k_pe, cache, [0], k_pe_cache=k_pe_cache
        )
