# SPDX-License-Identifier: Apache-2.0
"""What the layer refuses, by name and without a trace."""

import gc
import sys

import numpy as np
import pytest
from reference_layer import FP8, LayerProblem, outputs
from test_backends import RUNNABLE
from test_layer import layer_for
from test_tensors import WRONG_TENSORS

from mla_prefill import MLAPrefillBackendEnum, MLAPrefillLayer, concat_and_cache_mla

#: NaN in a cache that a change turns into integers.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast")

ERRORS = (TypeError, ValueError)
TENSORS = ("q", "kv_c_normed", "k_pe", "kv_cache", "out", "lse")


def problem_of_two():
    return LayerProblem([7, 5], [20, 3])


def refused(name, error=ERRORS, problem=None, **changed):
    """Refuses with the argument's name, and leaves the outputs as they were."""
    problem = problem or problem_of_two()
    untouched = outputs(problem)
    with pytest.raises(error, match=name):
        layer_for(problem).forward(**{**problem.tensors, **untouched, **changed})
    for tensor in untouched.values():
        assert (tensor == 7).all()


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("change, error", WRONG_TENSORS)
def test_wrong_tensors_are_named(name, change, error):
    problem = problem_of_two()
    refused(rf"\b{name}\b", error, **{name: change({**problem.tensors, **outputs(problem)}[name])})


@pytest.mark.parametrize("name", ["q", "kv_c_normed", "k_pe", "kv_cache", "block_table"])
def test_missing_arguments_are_named(name):
    refused(rf"\b{name}\b", **{name: None})


def test_wrong_types_between_tensors_are_named():
    problem = problem_of_two()
    refused("kv_c_normed.*dtype", kv_c_normed=problem.kv_c_normed.astype(np.float16))
    refused("kv_cache.*dtype", kv_cache=problem.kv_cache.astype(np.float16))
    refused("lse.*dtype", lse=np.zeros((2, 12), np.float16))


def test_read_only_and_overlapping_out_are_named():
    problem = problem_of_two()
    out = outputs(problem)["out"]
    out.flags.writeable = False
    refused("out: is read-only", ValueError, out=out)
    square = LayerProblem([7, 5], [20, 3], nope=8)
    with pytest.raises(ValueError, match=r"out.*must not overlap q"):
        layer_for(square).forward(**square.tensors, out=square.q)


@pytest.mark.parametrize(
    "table, error",
    [
        ("01", TypeError),
        (3, TypeError),
        ([0, 1, 2], TypeError),
        ([[0.5], [1]], TypeError),
        ([["0"], [1]], TypeError),
        (np.zeros((2, 3)), TypeError),
        (np.zeros((2, 3), np.int16), TypeError),
        (np.zeros(3, np.int32), ValueError),
        (np.zeros((1, 2, 3), np.int32), ValueError),
        (np.zeros((1, 3), np.int32), ValueError),
        ([[0, 1, 2]], ValueError),
        ([[0, 1, 2], [1 << 40]], ValueError),
        (np.array([[0, 1, 1 << 40], [2, 0, 0]]), ValueError),
        # Blocks that are needed.
        ([[0, 1], [2]], ValueError),
        ([[0, 1, 2], []], ValueError),
        ([[0, 1, -1], [2]], ValueError),
        ([[0, 1, 6], [2]], ValueError),
        (np.array([[0, 1, 2**31 - 1], [2, -1, -1]], np.int32), ValueError),
    ],
)
def test_wrong_block_tables_are_named(table, error):
    refused("block_table|max_blocks", error, block_table=table)


@pytest.mark.parametrize("name", ["query_start_loc", "context_lens"])
@pytest.mark.parametrize(
    "values, error",
    [
        ("012", TypeError),
        (3, TypeError),
        ([0, 2.5, 3], TypeError),
        (np.array([0.0, 7, 12]), TypeError),
        (np.array([[0, 7, 12]]), ValueError),
        ([], ValueError),
        ([0], ERRORS),
        ([0, 7, 12, 13, 14], ERRORS),
        ([0, -5, 12], ERRORS),
        ([0, 7, 1 << 40], ERRORS),
        (np.array([0, 7, 1 << 40]), ERRORS),
    ],
)
def test_wrong_lengths_are_named(name, values, error):
    refused(r"query_start_loc|context_lens|num_requests", error, **{name: values})


def test_context_longer_than_the_table_is_named():
    refused("context_lens|block_table|max_blocks", ValueError, context_lens=[25, 3])


@pytest.mark.parametrize(
    "field, value",
    [
        *(
            (name, bad)
            for name in ("num_heads", "kv_lora_rank", "v_head_dim")
            for bad in ("x", None, 0, -1, 2.5, 1 << 40)
        ),
        *(("scale", bad) for bad in ("x", None, float("nan"), float("inf"), 1e300)),
        *(("dtype", bad) for bad in ("float64", "x", 3, "float8_e4m3fn", object())),
        *(("cache_dtype", bad) for bad in ("float64", "x", 3, object())),
        *(("cache_scale", bad) for bad in ("x", 2.0, float("nan"), -1.0)),
        *(("workspace_bound", bad) for bad in ("x", -1, 2.5, 1 << 70)),
        *(("algorithm", bad) for bad in ("x", None, 1, [])),
        *(("cache_format", bad) for bad in ("x", None, 1)),
        *(("weight_scales", bad) for bad in ("x", np.ones(1, np.float32), np.ones(1))),
        *(
            ("weight_block", bad)
            for bad in ("xy", 3, (32,), (32, "x"), (32, 32), (-1, 0), (1 << 40, 1), (32, 32, 1))
        ),
        *(("backend", bad) for bad in ("NOPE", "", "CUSTOM", 3)),
        *(
            ("kv_b_proj", bad)
            for bad in (
                None,
                "x",
                [[1.0]],
                np.zeros((3, 3), np.float32),
                np.zeros(3, np.float32),
                np.zeros((80, 40)),
            )
        ),
    ],
)
def test_wrong_options_are_named(field, value):
    problem = LayerProblem([1], [0])
    options = {**problem.dimensions, "kv_b_proj": problem.kv_b_proj, field: value}
    with pytest.raises(ERRORS, match=field):
        MLAPrefillLayer(**options)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_wrong_scales_of_fp8_caches_are_named(scale):
    problem = LayerProblem([1], [3], cache_dtype="float8_e4m3fn")
    with pytest.raises(ValueError, match="cache_scale"):
        layer_for(problem, cache_scale=scale)
    with pytest.raises(ValueError, match="cache_scale"):
        concat_and_cache_mla(problem.kv_c_normed, problem.k_pe, problem.kv_cache, [0], scale)


@pytest.mark.parametrize(
    "scales",
    [
        None,
        np.ones(2, np.float32),
        np.ones((2, 1), np.float32),
        np.ones((1, 1), np.float16),
        np.full(1, -1, np.float32),
        np.full((1, 1), np.nan, np.float32),
    ],
)
def test_wrong_scales_of_fp8_weights_are_named(scales):
    problem = LayerProblem([1], [0])
    weights = problem.kv_b_proj.astype(FP8)
    options = {**problem.dimensions, "kv_b_proj": weights, "dtype": "float32"}
    MLAPrefillLayer(**options, weight_scales=np.ones(1, np.float32))
    with pytest.raises(ERRORS, match="weight_scales|kv_b_proj"):
        MLAPrefillLayer(**options, weight_scales=scales)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_backend_by_name(name):
    problem = LayerProblem([5, 9], [30, 0])
    for backend in (name, MLAPrefillBackendEnum[name]):
        problem.check(layer_for(problem, backend=backend).forward(**problem.tensors))


@pytest.mark.parametrize(
    "name, value, error",
    [
        ("kv_c_normed", None, ERRORS),
        ("k_pe", None, ERRORS),
        ("kv_cache", None, ERRORS),
        ("kv_c_normed", np.zeros((4, 40)), TypeError),
        ("k_pe", np.zeros((4, 7), np.float32), ValueError),
        ("kv_cache", np.zeros((2, 48), np.float32), ValueError),
        ("slot_mapping", None, TypeError),
        ("slot_mapping", [0, "x"], TypeError),
        ("slot_mapping", [0, 16], ValueError),
        ("slot_mapping", [0, -2], ValueError),
        ("slot_mapping", [0, 1 << 70], ValueError),
        ("slot_mapping", [0, 1, 2, 3, 4, 5], ValueError),
        ("slot_mapping", np.zeros((1, 4), np.int64), ValueError),
        ("slot_mapping", np.zeros(4), TypeError),
    ],
)
def test_wrong_arguments_of_the_cache_are_named(name, value, error):
    cache = np.full((2, 8, 48), 7, np.float32)
    arguments = {
        "kv_c_normed": np.zeros((4, 40), np.float32),
        "k_pe": np.zeros((4, 8), np.float32),
        "kv_cache": cache,
        "slot_mapping": [0, 1, 2, 3],
    }
    with pytest.raises(error, match=rf"{name}|num_slots"):
        concat_and_cache_mla(**{**arguments, name: value})
    assert (cache == 7).all()
    read_only = cache.copy()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="kv_cache: is read-only"):
        concat_and_cache_mla(**{**arguments, "kv_cache": read_only})


def test_calls_keep_nothing():
    problem = problem_of_two()
    layer = layer_for(problem)
    table = np.array([row + [-1] * (3 - len(row)) for row in problem.block_table], np.int32)
    arguments = {**problem.tensors, **outputs(problem), "block_table": table}
    tensors = [value for value in arguments.values() if isinstance(value, np.ndarray)]

    def counts():
        return [sys.getrefcount(tensor) for tensor in [*tensors, problem.kv_b_proj]]

    before = counts()
    for _ in range(50):
        layer_for(problem)
        layer.forward(**arguments)
        with pytest.raises(ValueError):
            layer.forward(**{**arguments, "context_lens": [2**31 - 1, 3]})
    gc.collect()
    assert counts() == before
