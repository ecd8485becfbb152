# SPDX-License-Identifier: Apache-2.0
"""torch's tensors, read and written in place."""

import pickle
import sys
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reference import Problem
from test_backends import RUNNABLE
from test_openmp_threads import passes

from mla_prefill import (
    ChunkedContextMetadata,
    ContextChunk,
    MLAPrefillBackend,
    MLAPrefillBackendEnum,
    MLAPrefillConfig,
    MLAPrefillSelectorConfig,
    PrefillMetadata,
    get_mla_prefill_backend,
    merge_attn_states,
)
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def tensors_of(problem):
    return [
        torch.from_numpy(getattr(problem, name).astype(np.float32)).to(TYPES[problem.dtype])
        for name in "qkv"
    ]


def backend_for(problem, name="CPU"):
    backend = MLAPrefillBackendEnum[name].get_class()(**problem.arguments, vllm_config=None)
    backend.prepare_metadata(
        PrefillMetadata(query_start_loc=torch.tensor(problem.queries, dtype=torch.int32))
    )
    return backend


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", RUNNABLE)
def test_new_tokens(name, dtype):
    problem = Problem([7, 1, 40], dtype=dtype)
    out, lse = backend_for(problem, name).run_prefill_new_tokens(*tensors_of(problem), True)
    assert out.dtype == TYPES[dtype] and lse.dtype == torch.float32
    problem.check(out.double().numpy(), lse.numpy())


def test_outputs_without_memory():
    """q has tokens beyond the batch's."""
    problem = Problem([5])
    backend, tensors = backend_for(Problem([3])), tensors_of(problem)
    out, lse = torch.empty(problem.v.shape), torch.empty(2, 5)
    for name in ("out", "lse"):
        outputs = {"out": out, "lse": lse}
        outputs[name] = outputs[name].clone()
        outputs[name].untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=rf"^{name}\.data = NULL: must not be NULL"):
            backend._backend.run_prefill_new_tokens(*tensors, *outputs.values(), None, True)


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
def test_context_chunk(index_type):
    problem = Problem([7, 3], context=[50, 9], dtype="bfloat16")
    chunk = ContextChunk(
        index=0,
        query_start_loc=torch.tensor(problem.queries, dtype=index_type),
        cu_seq_lens=torch.tensor(problem.keys, dtype=index_type),
    )
    backend = backend_for(problem)
    backend.prepare_metadata(
        PrefillMetadata(
            query_start_loc=chunk.query_start_loc,
            chunked_context=ChunkedContextMetadata(chunks=[chunk]),
        )
    )
    q, k, v = tensors_of(problem)
    out, lse = backend.run_prefill_context_chunk(chunk=chunk, q=q, k=k, v=v)
    problem.check(out.double().numpy(), lse.numpy())


def test_split_view_and_out_are_not_copied():
    problem = Problem([33, 5], dtype="bfloat16")
    q, k, v = tensors_of(problem)
    kv = torch.cat([torch.zeros(38, 2, 24, dtype=v.dtype), v], -1)
    out = torch.full((38, 2, 20), 7, dtype=torch.bfloat16)
    result = backend_for(problem).run_prefill_new_tokens(
        q, k, kv.split([24, 16], -1)[1], False, out=out[..., :16]
    )
    assert result.data_ptr() == out.data_ptr() and (out[..., 16:] == 7).all()
    problem.check(result.double().numpy())


def test_inference_mode_and_parameters():
    problem = Problem([5])
    with torch.inference_mode():
        q, k, v = tensors_of(problem)
        problem.check(backend_for(problem).run_prefill_new_tokens(q, k, v, False).numpy())
    for name in ("q", "k", "v"):
        tensors = dict(zip("qkv", tensors_of(problem), strict=True))
        tensors[name].requires_grad_()
        with pytest.raises(ValueError, match=rf"{name}\.requires_grad = True"):
            backend_for(problem).run_prefill_new_tokens(**tensors, return_softmax_lse=False)


@pytest.mark.parametrize("name", ["q", "k", "v", "out"])
@pytest.mark.parametrize(
    "change, error",
    [
        (lambda t: t.double(), TypeError),
        (lambda t: t.long(), TypeError),
        (lambda t: t.to("meta"), ValueError),
        (lambda t: t.to_sparse(), ValueError),
        (lambda t: t.bool(), TypeError),
        (lambda t: torch.complex(t, t), (TypeError, ValueError)),
        (lambda t: t[0], ValueError),
        (lambda t: t.sum(), ValueError),
        (lambda t: t[:-1], ValueError),
        (lambda t: t.permute(0, 2, 1).contiguous().permute(0, 2, 1), ValueError),
        (lambda t: torch._neg_view(t), ValueError),
    ],
)
def test_wrong_tensors_are_named(name, change, error):
    problem = Problem([5])
    tensors = dict(zip("qkv", tensors_of(problem), strict=True), out=torch.zeros(5, 2, 16))
    tensors[name] = change(tensors[name])
    with pytest.raises(error, match=rf"\b{name}\b"):
        backend_for(problem).run_prefill_new_tokens(**tensors, return_softmax_lse=True)


@pytest.mark.parametrize("with_out", [False, True])
def test_results_are_where_q_is(with_out):
    """Whatever torch's default device and type are."""
    problem = Problem([7, 3], context=[5, 6])
    q, k, v = tensors_of(problem)
    new = Problem([7, 3])
    new_tensors = tensors_of(new)
    optional = {"out": torch.empty(10, 2, 16)} if with_out else {}
    chunk = ContextChunk(query_start_loc=problem.queries, cu_seq_lens=problem.keys)
    backend = backend_for(problem)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            part = backend.run_prefill_context_chunk(chunk, q, k, v, **optional)
            problem.check(*(tensor.numpy().copy() for tensor in part))
            out, lse = backend.run_prefill_new_tokens(*new_tensors, True, **optional)
            quantized = backend.run_prefill_new_tokens(*new_tensors, False, output_scale=0.5)
    finally:
        torch.set_default_dtype(torch.float32)
    new.check(out.numpy(), lse.numpy())
    assert out.dtype == lse.dtype == torch.float32 and quantized.device.type == "cpu"


def test_types_of_torch():
    backend = CPUSDPAMLAPrefillBackend
    assert all(kind in backend.supported_dtypes for kind in TYPES.values())
    assert backend.supports_dtype(torch.bfloat16) and not backend.supports_dtype(torch.int8)
    assert torch.bfloat16 in MLAPrefillBackend.supported_dtypes
    reasons = backend.validate_configuration(None, MLAPrefillSelectorConfig(torch.float64))
    assert reasons == ["dtype torch.float64 not supported"]
    assert get_mla_prefill_backend(None) is get_mla_prefill_backend(
        MLAPrefillConfig(dtype=torch.get_default_dtype())
    )
    assert pickle.loads(pickle.dumps(MLAPrefillSelectorConfig(torch.bfloat16)))


def test_merge():
    out = torch.zeros(3, 2, 4, dtype=torch.bfloat16)
    lse = torch.zeros(2, 3)
    merge_attn_states(out, out + 1, lse, out + 3, lse, None)
    assert (out == 2).all()
    quantized = torch.zeros(3, 2, 4, dtype=torch.float8_e4m3fn)
    merge_attn_states(quantized, out, lse, out, lse, output_scale=torch.tensor([0.5]))
    assert (quantized.float() == 4).all()


def test_quantized_output():
    random = torch.Generator().manual_seed(1)
    q, k, v = (
        torch.randn(33, 2, dim, generator=random).to(torch.bfloat16) for dim in (96, 96, 64)
    )
    arguments = {"num_heads": 2, "scale": 0.1, "kv_lora_rank": 512}
    dims = {"qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64}
    backend = MLAPrefillBackendEnum.CPU.get_class()(**arguments, **dims, vllm_config=None)
    backend.prepare_metadata(PrefillMetadata(query_start_loc=[0, 33]))
    assert backend.supports_quant_output(torch.float8_e4m3fn)
    exact = torch.empty(33, 2, 64)
    backend.run_prefill_new_tokens(q=q, k=k, v=v, return_softmax_lse=False, out=exact)
    scale = torch.tensor([0.01])
    expected = (exact * (1 / scale)).clamp(-448, 448).to(torch.float8_e4m3fn)
    out = torch.empty(33, 2, 64, dtype=torch.float8_e4m3fn)
    result = backend.run_prefill_new_tokens(
        q=q, k=k, v=v, return_softmax_lse=False, out=out, output_scale=scale
    )
    assert result is out and torch.equal(out.view(torch.uint8), expected.view(torch.uint8))
    made = backend.run_prefill_new_tokens(
        q=q, k=k, v=v, return_softmax_lse=False, output_scale=scale
    )
    assert torch.equal(made.view(torch.uint8), expected.view(torch.uint8))


def test_torch_threads_are_left_alone():
    threads = torch.get_num_threads()
    problem = Problem([64])
    work = [
        threading.Thread(
            target=backend_for(problem).run_prefill_new_tokens, args=(*tensors_of(problem), False)
        )
        for _ in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert torch.get_num_threads() == threads
    assert "torch" in sys.modules


def test_runs_on_the_threads_of_torch():
    passes("""
import torch
torch.set_num_threads(3)
torch.ones(1000, 1000).exp()
before = threads()
assert mla_prefill.use_openmp_threads()
run()
assert threads() == before
""")


def test_tensors_cross_without_python_code(monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("Python code has run")

    monkeypatch.setattr(torch.Tensor, "__dlpack__", refuse)
    monkeypatch.setattr(torch.utils.dlpack, "to_dlpack", refuse)
    problem = Problem([5])
    out = torch.zeros(5, 2, 16)
    problem.check(backend_for(problem).run_prefill_new_tokens(*tensors_of(problem), False, out=out))


def test_what_other_libraries_call_as_torch_does():
    """Their tensors may have the exchange API, and anything by these names."""

    class Other(torch.Tensor):
        is_neg = False

        def requires_grad(self):
            raise AssertionError

    problem = Problem([5])
    q, k, v = tensors_of(problem)
    problem.check(
        backend_for(problem).run_prefill_new_tokens(q.as_subclass(Other), k, v, False).numpy()
    )


def test_torch_of_before_the_exchange_api(monkeypatch):
    monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__")
    problem = Problem([5])
    tensors, out = dict(zip("qkv", tensors_of(problem), strict=True)), torch.zeros(5, 2, 16)
    backend = backend_for(problem)
    problem.check(backend.run_prefill_new_tokens(**tensors, return_softmax_lse=False, out=out))
    for change, said in (
        (lambda t: t.to("meta"), "q: Cannot pack tensors on meta"),
        (lambda t: torch._neg_view(t), r"q\.is_neg\(\) = True"),
        (lambda t: t.clone().requires_grad_(), r"q\.requires_grad = True"),
    ):
        wrong = {**tensors, "q": change(tensors["q"])}
        with pytest.raises(ValueError, match=f"^{said}"):
            backend.run_prefill_new_tokens(**wrong, return_softmax_lse=False)
