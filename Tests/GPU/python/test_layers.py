# SPDX-License-Identifier: Apache-2.0
"""Layers on CUDA tensors, against float64."""

from types import SimpleNamespace

import cuda_driver as driver
import numpy as np
import pytest
from cuda_array import CudaArray, strided
from layer_problems import TENSORS, layer_for, lse_for, on_device, problem_of, table_of
from reference_layer import FP8, stored_as_fp8_ds_mla

from mla_prefill import MLAPrefillLayer, _devices, merge_attn_states


@pytest.mark.parametrize("device", [0, 1])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_requests(dtype, device):
    problem = problem_of([7, 1, 0, 40], [50, 0, 9, 16], dtype)
    layer, lse = layer_for(problem, device), lse_for(problem, device)
    out = layer.forward(**on_device(problem, device), lse=lse)
    assert layer.device == f"cuda:{device}"
    assert (out.dtype, out.device, out.shape) == (dtype, (2, device), (48, 2, 128))
    problem.check(out.numpy(), lse.numpy())


@pytest.mark.parametrize("cache_dtype", ["bfloat16", "float8_e4m3fn", "float32"])
def test_caches(cache_dtype):
    scale = 0.02 if cache_dtype == "float8_e4m3fn" else 1.0
    problem = problem_of([20, 5], [60, 33], cache_dtype=cache_dtype, cache_scale=scale)
    layer = layer_for(problem, cache_dtype=cache_dtype, cache_scale=scale)
    problem.check(layer.forward(**on_device(problem)).numpy())


def test_fp8_ds_mla():
    problem = problem_of([5, 20], [40, 13], rank=512)
    cache = stored_as_fp8_ds_mla(problem)
    layer = layer_for(problem, cache_format="fp8_ds_mla")
    for stored in (cache, cache.view(FP8), cache[:, :, None]):
        out = layer.forward(**on_device(problem) | {"kv_cache": CudaArray(stored)})
        problem.check(out.numpy())


def test_a_dense_cache():
    """Without a table request i has block i."""
    problem = problem_of([5, 3], [9, 30], block_size=30)
    problem.kv_cache = problem.kv_cache[[row[0] for row in problem.block_table]]
    problem.slots = [range(9), range(30, 60)]
    out = layer_for(problem).forward(**on_device(problem) | {"block_table": None})
    problem.check(out.numpy())


def test_rotary_keys_apart():
    problem = problem_of([5, 20], [40, 13])
    apart = {
        "kv_cache": CudaArray(problem.kv_cache[..., : problem.rank]),
        "k_pe_cache": CudaArray(problem.kv_cache[:, :, None, problem.rank :]),
    }
    problem.check(layer_for(problem).forward(**on_device(problem) | apart).numpy())


def test_rows_of_a_table():
    """By number, from the middle of a block on."""
    problem = problem_of([5, 20], [40, 13], block_size=50)
    starts = np.array([3, 20])
    wide = np.full((9, 2), -1, np.int32)
    problem.kv_cache = np.full((6, 50, 128), np.nan, problem.q.dtype)
    problem.slots = [range(start + 50 * i, start + 50 * i + rows) for i, start, rows in ((4, 3, 40), (2, 20, 13))]
    for rows, slots in zip(problem.cached, problem.slots, strict=True):
        problem.kv_cache.reshape(300, 128)[slots] = rows
    wide[7, 0], wide[3, 0] = 4, 2
    where = {"block_table": CudaArray(wide), "context_starts": starts, "block_table_rows": [7, 3]}
    problem.check(layer_for(problem).forward(**on_device(problem) | where).numpy())


def test_fewer_rows_than_requests():
    problem = problem_of([5, 3], [0, 30])
    where = {"block_table": CudaArray(table_of(problem)[1:]), "block_table_rows": [0, 0]}
    problem.check(layer_for(problem).forward(**on_device(problem) | where).numpy())


def test_context_only():
    """And what merges it with the new tokens: the whole."""
    problem = problem_of([6, 4, 3], [50, 0, 9])
    layer, tensors = layer_for(problem), on_device(problem)
    lses = [lse_for(problem) for _ in range(3)]
    new = {"kv_c_normed": None, "k_pe": None}
    context = layer.forward(**tensors | new, lse=lses[0], context_only=True)
    names = "q", "kv_c_normed", "k_pe", "query_start_loc"
    fresh = layer.forward(**{name: tensors[name] for name in names}, lse=lses[1])
    assert (context.numpy()[6:10].astype(float) == 0).all() and (lses[0].numpy()[:, 6:10] == -np.inf).all()
    merge_attn_states(context, context, lses[0], fresh, lses[1], lses[2])
    problem.check(context.numpy(), lses[2].numpy())


def test_quantized_output():
    problem = problem_of([7, 1, 40], [50, 30, 0])
    layer, tensors = layer_for(problem), on_device(problem)
    wanted = np.clip(problem.expected()[0] / 0.02, -448, 448)
    out = layer.forward(**tensors, output_scale=0.02)
    assert out.dtype == "float8_e4m3fn"
    np.testing.assert_allclose(out.numpy().astype(float), wanted, rtol=0.08, atol=0.5)
    with pytest.raises(ValueError, match="output_scale = NULL: must be given with an fp8 output"):
        layer.forward(**tensors, out=out)


def test_outputs_of_the_callers():
    problem = problem_of([20, 5], [60, 33])
    wide = np.full((25, 2, 130), 7, np.float32)
    out = CudaArray(wide[..., :128])
    assert layer_for(problem).forward(**on_device(problem), out=out) is out
    problem.check(out.numpy())
    assert (wide[..., 128:] == 7).all()


@pytest.mark.parametrize("padding", [1, 8])
def test_strided_tensors(padding):
    problem = problem_of([33, 2], [9, 20])
    plain = on_device(problem)
    there = {name: CudaArray(strided(problem.tensors[name], padding)) for name in TENSORS}
    table = np.repeat(table_of(problem), 2, 0)[::2]
    assert table.strides[0] != table.shape[1] * 4
    there["block_table"] = CudaArray(table)
    layer = MLAPrefillLayer(**problem.dimensions, kv_b_proj=CudaArray(strided(problem.kv_b_proj, padding)))
    problem.check(layer.forward(**plain | there).numpy())


def test_rows_beyond_the_batch():
    problem = problem_of([9, 4], [0, 0])
    fresh = [
        CudaArray(np.concatenate([tensor, np.full((3, *tensor.shape[1:]), np.nan, tensor.dtype)]))
        for tensor in (problem.q, problem.kv_c_normed, problem.k_pe)
    ]
    out = layer_for(problem).forward(*fresh, query_start_loc=problem.queries).numpy()
    problem.check(out[:13])
    assert (out[13:].astype(float) == 0).all()


def test_no_requests():
    problem = problem_of([], [])
    out = layer_for(problem).forward(*(CudaArray(problem.tensors[name]) for name in TENSORS[:3]), query_start_loc=[0])
    assert out.shape == (0, 2, 128)
    # One without tokens, and one request of all rows.
    tensors = {name: CudaArray(problem.tensors[name]) for name in TENSORS[:3]}
    assert layer_for(problem).forward(**tensors).shape == (0, 2, 128)


def test_weights_are_copied():
    problem = problem_of([5], [9])
    weights = CudaArray(problem.kv_b_proj)
    layer = MLAPrefillLayer(**problem.dimensions, kv_b_proj=weights)
    with driver.device(0):
        driver.call("cuMemsetD8Async", weights.address, 0xFF, problem.kv_b_proj.nbytes, driver.LEGACY)
    del weights
    problem.check(layer.forward(**on_device(problem)).numpy())


def test_quantized_weights():
    problem = problem_of([5], [9])
    scales = np.float32([0.5, 0.25] * 256).reshape(512, 1)
    exact = problem.kv_b_proj.astype(np.float32)
    weights = (exact / scales).astype(FP8)
    problem.kv_b_proj = weights.astype(np.float32) * scales
    layer = MLAPrefillLayer(
        **problem.dimensions, kv_b_proj=CudaArray(weights), weight_scales=CudaArray(scales), dtype="bfloat16")
    problem.check(layer.forward(**on_device(problem)).numpy())


def test_a_bound():
    problem = problem_of([5, 30], [200, 90], heads=4)
    free, bound = layer_for(problem), layer_for(problem, workspace_bound=400_000)
    batch = problem.queries, problem.context
    assert 0 < bound.workspace_size(*batch) <= 400_000 < free.workspace_size(*batch)
    outs = [layer.forward(**on_device(problem)).numpy() for layer in (free, bound)]
    assert outs[0].tobytes() == outs[1].tobytes()
    problem.check(outs[0])


def test_streams():
    """Weights are waited for, and results are there in the order of the call's stream."""
    problem = problem_of([20], [9])
    weights, tensors = CudaArray(problem.kv_b_proj), on_device(problem)
    layer = MLAPrefillLayer(**problem.dimensions, kv_b_proj=weights)
    out = layer.forward(**tensors)
    assert weights.streams == out.streams == [driver.LEGACY]
    assert (out.numpy(after=None).astype(float) == 0).all()
    problem.check(out.numpy())


def test_current_stream(cupy):
    """Of the library that the tensors are of."""
    problem = problem_of([20], [9])
    arrays = {
        name: cupy.ndarray(value._values, 1) if isinstance(value, CudaArray) else value
        for name, value in on_device(problem, 1).items()
    }
    # Its end would wait for all that the device does.
    layer = layer_for(problem, 1)
    out = layer.forward(**arrays)
    assert {*arrays["q"].streams, *arrays["block_table"].streams, *out.streams} == {cupy.stream}
    # The default stream does not wait for it.
    assert (out.numpy().astype(float) == 0).all()
    problem.check(out.numpy(after=cupy.stream))


def test_weights_of_a_stream_of_torchs(monkeypatch):
    """Torch, whose tensors others read without its streams' waiting: the layer waits."""
    problem = problem_of([5], [9])
    waited = []

    class Tensor(CudaArray):
        device = SimpleNamespace(type="cuda", index=0)

    def current_stream(device):
        return SimpleNamespace(cuda_stream=0, synchronize=lambda: waited.append(device))

    torch = SimpleNamespace(Tensor=Tensor, cuda=SimpleNamespace(current_stream=current_stream))
    torch.version = SimpleNamespace(hip=None)
    monkeypatch.setattr(_devices, "sys", SimpleNamespace(modules={"torch": torch}))
    weights = Tensor(problem.kv_b_proj)
    layer = MLAPrefillLayer(**problem.dimensions, kv_b_proj=weights)
    assert waited == [Tensor.device]
    problem.check(layer.forward(**on_device(problem)).numpy())
    assert waited == [Tensor.device]
