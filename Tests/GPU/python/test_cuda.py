# SPDX-License-Identifier: Apache-2.0
"""The package's calls on CUDA tensors of a library that keeps DLPack's rules."""

import os

import cuda_driver as driver
import ml_dtypes
import numpy as np
import pytest
from cuda_array import CudaArray, strided
from reference import Problem

from mla_prefill import (
    ContextChunk,
    MLAPrefillBackendEnum,
    PrefillMetadata,
    merge_attn_states,
)

HEADS = dict(heads=2, nope=128, rope=64, value=128)


def problem_of(lengths, dtype="bfloat16", **keywords):
    return Problem(lengths, dtype=dtype, **HEADS, **keywords)


def backend_for(problem, device="cuda:0", name="FLASH_ATTN"):
    backend = MLAPrefillBackendEnum[name].get_class()(**problem.arguments, device=device)
    backend.prepare_metadata(PrefillMetadata(query_start_loc=problem.queries))
    return backend


def on_device(problem, device=0, **keywords):
    return [CudaArray(tensor, device, **keywords) for tensor in (problem.q, problem.k, problem.v)]


def chunk_of(problem):
    return ContextChunk(query_start_loc=problem.queries, cu_seq_lens=problem.keys)


@pytest.mark.parametrize("device", [0, 1])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_new_tokens(dtype, device):
    problem = problem_of([70, 0, 3], dtype)
    backend = backend_for(problem, f"cuda:{device}")
    tensors = on_device(problem, device)
    out, lse = backend.run_prefill_new_tokens(*tensors, True)
    assert (out.dtype, out.device, lse.dtype, lse.shape) == (dtype, (2, device), "float32", (2, 73))
    problem.check(out.numpy(), lse.numpy())
    mine = CudaArray(np.zeros((73, 2, 128), problem.q.dtype), device)
    assert backend.run_prefill_new_tokens(*tensors, False, out=mine) is mine
    problem.check(mine.numpy())


def test_context_chunk():
    problem = problem_of([9, 0, 66], context=[70, 11, 1])
    out, lse = backend_for(problem).run_prefill_context_chunk(chunk_of(problem), *on_device(problem))
    problem.check(out.numpy(), lse.numpy())


@pytest.mark.parametrize("padding", [1, 8])
def test_strided_tensors(padding):
    problem = problem_of([33, 2])
    tensors = [CudaArray(strided(tensor, padding)) for tensor in (problem.q, problem.k, problem.v)]
    wide = np.full((35, 2, 128 + padding), 7, problem.q.dtype)
    out = CudaArray(wide[..., :128])
    backend_for(problem).run_prefill_new_tokens(*tensors, False, out=out)
    problem.check(out.numpy())
    assert (wide[..., 128:].astype(float) == 7).all()


def test_rows_beyond_the_batch():
    problem = problem_of([5, 3])
    backend = backend_for(problem)
    backend.prepare_metadata(PrefillMetadata(query_start_loc=[0, 5]))
    out, lse = (each.numpy() for each in backend.run_prefill_new_tokens(*on_device(problem), True))
    expected, expected_lse = problem.expected()
    np.testing.assert_allclose(out[:5].astype(float), expected[:5], atol=0.05)
    np.testing.assert_allclose(lse[:, :5], expected_lse[:, :5], atol=1e-3)
    assert (out[5:].astype(float) == 0).all() and (lse[:, 5:] == -np.inf).all()


def test_streams_wait_for_each_other():
    """Consumer and producer: without an exporter that has them wait, nothing is there yet."""
    problem = problem_of([20])
    backend = backend_for(problem)
    tensors = on_device(problem)
    out = backend.run_prefill_new_tokens(*tensors, False)
    assert [tensor.streams for tensor in tensors] == [[driver.LEGACY]] * 3
    assert out.streams[-1] == driver.LEGACY
    problem.check(out.numpy())
    hasty = on_device(problem, waits=False)
    assert np.isnan(backend.run_prefill_new_tokens(*hasty, False).numpy().astype(float)).all()
    early = backend.run_prefill_new_tokens(*tensors, False)
    assert (early.numpy(after=None).astype(float) == 0).all()


def test_current_stream(cupy):
    problem = problem_of([20], context=[9])
    backend = backend_for(problem, "cuda:1")
    tensors = [cupy.ndarray(tensor, 1) for tensor in (problem.q, problem.k, problem.v)]
    out, lse = backend.run_prefill_context_chunk(chunk_of(problem), *tensors)
    assert set(cupy.asked) == {1} and {*tensors[0].streams, *out.streams} == {cupy.stream}
    # The default stream does not wait for it.
    assert (out.numpy().astype(float) == 0).all()
    problem.check(out.numpy(after=cupy.stream), lse.numpy(after=cupy.stream))
    merged = cupy.ndarray(np.zeros(out.shape, problem.q.dtype), 1)
    merge_attn_states(merged, out, lse, out, lse)
    assert (merged.numpy().astype(float) == 0).all()
    problem.check(merged.numpy(after=cupy.stream))


def test_quantized_output():
    problem = problem_of([20, 5])
    backend = backend_for(problem)
    plain = backend.run_prefill_new_tokens(*on_device(problem), False).numpy().astype(float)
    out = CudaArray(np.zeros((25, 2, 128), ml_dtypes.float8_e4m3fn))
    backend.run_prefill_new_tokens(*on_device(problem), False, out=out, output_scale=0.01)
    wanted = np.clip(plain / 0.01, -448, 448)
    np.testing.assert_allclose(out.numpy().astype(float), wanted, rtol=0.08, atol=0.5)


def test_merging():
    problem = problem_of([9, 4], context=[30, 1])
    backend = backend_for(problem)
    own = problem_of([9, 4], seed=1)
    context = backend.run_prefill_context_chunk(chunk_of(problem), *on_device(problem))
    fresh = backend.run_prefill_new_tokens(*on_device(own), True)
    out, lse = CudaArray(np.zeros((13, 2, 128), problem.q.dtype)), CudaArray(np.zeros((2, 13), np.float32))
    merge_attn_states(out, *context, *fresh, output_lse=lse)
    sides = [problem.expected(), own.expected()]
    weights = [np.exp(side[1]).T[..., None] for side in sides]
    expected = sum(w * side[0] for w, side in zip(weights, sides, strict=True)) / sum(weights)
    np.testing.assert_allclose(out.numpy().astype(float), expected, atol=0.05)
    np.testing.assert_allclose(lse.numpy(), np.log(sum(weights))[..., 0].T, atol=1e-3)


def test_names():
    """On a device of this capability."""
    problem = problem_of([3])
    for name in ("FLASHINFER", "TRTLLM_RAGGED", "TOKENSPEED_MLA"):
        with pytest.raises(ValueError, match="compute capability 9.0 not supported"):
            backend_for(problem, name=name)
        out = backend_for(problem, "cuda:2", name).run_prefill_new_tokens(*on_device(problem, 2), False)
        problem.check(out.numpy())


def test_memory_elsewhere():
    problem = problem_of([5])
    backend = backend_for(problem)
    here, there = on_device(problem), on_device(problem, 1)
    for place, name in enumerate("qkv"):
        tensors = list(here)
        tensors[place] = there[place]
        with pytest.raises(ValueError, match=rf"^{name}\.device = .*: must be DLPack type 2"):
            backend.run_prefill_new_tokens(*tensors, False)
        tensors[place] = (problem.q, problem.k, problem.v)[place]
        with pytest.raises(ValueError, match=rf"^{name}\.device = cpu: must be DLPack type 2"):
            backend.run_prefill_new_tokens(*tensors, False)
        lying = CudaArray(tensors[place])
        lying.address = there[place].address
        tensors[place] = lying
        with pytest.raises(ValueError, match=rf"^{name}\.data = 0x.*device 0, is device 1's"):
            backend.run_prefill_new_tokens(*tensors, False)
        lying.address = problem.q.ctypes.data
        with pytest.raises(ValueError, match=rf"^{name}\.data = 0x.*, is not CUDA's"):
            backend.run_prefill_new_tokens(*tensors, False)
    problem.check(backend.run_prefill_new_tokens(*here, False).numpy())


@pytest.mark.skipif(
    os.environ.get("MLA_CUDNN_LIBRARY") != "off", reason="where cuDNN fails own kernels serve, which these calls spare"
)
def test_what_the_driver_refuses():
    problem = problem_of([5])
    backend, tensors = backend_for(problem), on_device(problem)
    driver.fail_next("cuLaunchKernel", 2)
    with pytest.raises(MemoryError, match="cuLaunchKernel: CUDA_ERROR_OUT_OF_MEMORY"):
        backend.run_prefill_new_tokens(*tensors, False)
    driver.fail_next("cuLaunchKernel", 719)
    with pytest.raises(RuntimeError, match="cuLaunchKernel: CUDA_ERROR_LAUNCH_FAILED"):
        backend.run_prefill_new_tokens(*tensors, False)
    problem.check(backend.run_prefill_new_tokens(*tensors, False).numpy())
    with pytest.raises(ValueError, match=r"device_id = 7: must be below 3"):
        backend_for(problem, "cuda:7")
    with pytest.raises(ValueError, match="does not run on CUDA devices"):
        backend_for(problem, name="CPU")
    with pytest.raises((ValueError, NotImplementedError), match=r"^q\.dtype = "):
        backend.run_prefill_new_tokens(*[CudaArray(np.ones((5, 2, 192), np.float32))] * 2,
                                       CudaArray(np.ones((5, 2, 128), np.float32)), False)


def test_runs_on_the_cpu_call_no_driver():
    problem = problem_of([5])
    backend = backend_for(problem, "cpu")
    calls = driver.number_of_calls()
    problem.check(backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False))
    assert driver.number_of_calls() == calls


def test_a_forked_child():
    problem = problem_of([5])
    backend, tensors = backend_for(problem), on_device(problem)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            backend_for(problem, "cuda:0")
        except Exception as error:
            status = 0 if "forked from one that uses CUDA" in str(error) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    problem.check(backend.run_prefill_new_tokens(*tensors, False).numpy())
