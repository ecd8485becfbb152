# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from reference import TYPES, Problem

from mla_prefill import ContextChunk, MLAPrefillBackendEnum, PrefillMetadata

RUNNABLE = [
    member.name
    for member in MLAPrefillBackendEnum
    if member.value and member.get_class().is_available()
]


def backend_for(problem, name="CPU"):
    backend = MLAPrefillBackendEnum[name].get_class()(**problem.arguments, vllm_config=object())
    backend.prepare_metadata(PrefillMetadata(query_start_loc=problem.queries))
    return backend


def no_rows(name):
    """A request without rows, where the backend's contract allows one among others."""
    return [] if name == "TRTLLM_RAGGED" else [0]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", RUNNABLE)
def test_new_tokens(name, dtype):
    problem = Problem([7, *no_rows(name), 1, 40, 3], dtype=dtype)
    backend = backend_for(problem, name)
    out, lse = backend.run_prefill_new_tokens(
        q=problem.q, k=problem.k, v=problem.v, return_softmax_lse=True
    )
    assert out.dtype == problem.q.dtype
    problem.check(out, lse)
    alone = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False)
    assert (alone == out).all()


def test_offsets_of_any_kind():
    problem = Problem([4, 6])
    expected = backend_for(problem).run_prefill_new_tokens(problem.q, problem.k, problem.v, False)
    read_only = np.array(problem.queries)
    read_only.flags.writeable = False
    for kind in (
        tuple(problem.queries),
        np.array(problem.queries, np.int32),
        read_only,
        np.array([0, 9, 4, 9, 10], np.int64)[::2],
    ):
        backend = backend_for(problem)
        backend.prepare_metadata(SimpleNamespace(query_start_loc=kind))
        out = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False)
        assert (out == expected).all()


def test_strided_and_read_only_inputs():
    problem = Problem([33, 5])
    wide = np.zeros((38, 2, 40), np.float32)
    wide[..., 24:] = problem.v
    rows = np.zeros((76, 2, 32), np.float32)
    rows[::2] = problem.q
    q, k, v = (
        rows[::2],
        np.ascontiguousarray(problem.k.transpose(1, 0, 2)).transpose(1, 0, 2),
        wide[..., 24:],
    )
    for tensor in (q, k, v):
        tensor.flags.writeable = False
    problem.check(*backend_for(problem).run_prefill_new_tokens(q, k, v, True))


def test_out():
    problem = Problem([33, 5])
    wide = np.full((38, 2, 20), 7, np.float32)
    backend = backend_for(problem)
    assert backend.supports_out()
    out = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False, out=wide[..., :16])
    problem.check(out)
    assert (wide[..., 16:] == 7).all() and np.shares_memory(out, wide)
    half = np.empty((38, 2, 16), np.float16)
    assert backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False, out=half) is half
    np.testing.assert_allclose(half, wide[..., :16], atol=4e-3)


def test_empty_batch():
    problem = Problem([])
    out, lse = backend_for(problem).run_prefill_new_tokens(problem.q, problem.k, problem.v, True)
    assert out.shape == (0, 2, 16) and lse.shape == (2, 0)


#: Options of other libraries and slips of the pen: ignored, they would change nothing.
UNKNOWN = {
    "causal": False,
    "softmax_scale": 5.0,
    "window_size": (1, 0),
    "sliding_window": 4,
    "logits_soft_cap": 30.0,
    "sinks": None,
    "ouput": None,
    "num_kv_head": 1,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_keywords_are_refused(name):
    problem = Problem([3])
    backend, unknown = backend_for(problem), {name: UNKNOWN[name]}
    chunk = ContextChunk(query_start_loc=problem.queries, cu_seq_lens=problem.keys)
    tensors = {"q": problem.q, "k": problem.k, "v": problem.v}
    for call in (
        lambda: type(backend)(**problem.arguments, **unknown),
        lambda: backend.run_prefill_new_tokens(**tensors, return_softmax_lse=False, **unknown),
        lambda: backend.run_prefill_context_chunk(chunk, **tensors, **unknown),
    ):
        with pytest.raises(TypeError, match=rf"'{name}'"):
            call()


def test_clone_has_no_metadata():
    problem = Problem([3])
    backend = backend_for(problem)
    clone = backend.clone()
    assert type(clone) is type(backend) and clone.vllm_config is backend.vllm_config
    with pytest.raises(ValueError, match="prepare_metadata must be called before"):
        clone.run_prefill_new_tokens(problem.q, problem.k, problem.v, False)


def quantized(values, scale):
    """e4m3 of fp32 values, rounded once and saturated."""
    product = values * (np.float32(1) / np.float32(scale))
    return product.clip(-448, 448).astype(ml_dtypes.float8_e4m3fn)


@pytest.mark.parametrize("name", ["CPU", "FLASHINFER", "FLASH_ATTN"])
def test_quantized_output(name):
    problem = Problem([3, 70], dtype="bfloat16")
    backend = backend_for(problem, name)
    tensors = {"q": problem.q, "k": problem.k, "v": problem.v}
    exact = np.zeros((73, 2, 16), np.float32)
    backend.run_prefill_new_tokens(**tensors, return_softmax_lse=False, out=exact)
    rows = np.zeros((73, 2, 20), ml_dtypes.float8_e4m3fn)
    for scale in (0.02, np.float32(0.001), np.array(3.0)):
        expected = quantized(exact, np.asarray(scale).item())
        out, lse = backend.run_prefill_new_tokens(
            **tensors, return_softmax_lse=True, out=rows[..., :16], output_scale=scale
        )
        assert (out.view(np.uint8) == expected.view(np.uint8)).all() and np.isfinite(lse).all()
        assert (rows[..., 16:].view(np.uint8) == 0).all()
        made = backend.run_prefill_new_tokens(
            **tensors, return_softmax_lse=False, output_scale=scale
        )
        assert made.dtype == expected.dtype
        assert (made.view(np.uint8) == expected.view(np.uint8)).all()
    with pytest.raises(ValueError, match="output_scale = 1.0: must be given with an fp8 output"):
        backend.run_prefill_new_tokens(
            **tensors, return_softmax_lse=False, out=exact, output_scale=1.0
        )
    for scale in (0.0, 1e-39, 1e38):
        with pytest.raises(ValueError, match="output_scale = .*: must be from 2"):
            backend.run_prefill_new_tokens(**tensors, return_softmax_lse=False, output_scale=scale)


def test_a_warm_up_leaves_the_batch_alone():
    problem = Problem([3, 5])
    backend = backend_for(problem)
    backend.warm_up()
    out, lse = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, True)
    assert out.shape == (8, 2, 16) and np.isfinite(lse).all()


def test_keys_of_quantized_output():
    backend = backend_for(Problem([3]))

    def key(dtype="float8_e4m3fn", static=True, group_shape=(-1, -1), scale2=None):
        scale = SimpleNamespace(dtype="float32", static=static, group_shape=group_shape)
        return SimpleNamespace(dtype=dtype, scale=scale, scale2=scale2, symmetric=True)

    for supported in ("float8_e4m3fn", key()):
        assert backend.supports_quant_output(supported)
    for unsupported in (
        object(),
        "bfloat16",
        "float8_e5m2",
        key("int8"),
        key(static=False),
        key(group_shape=(1, -1)),
        key(group_shape=(128, 128)),
        key(scale2=object()),
    ):
        assert not backend.supports_quant_output(unsupported)
