# SPDX-License-Identifier: Apache-2.0
"""Calls as vLLM 0.28 to 0.33 make them, and what vLLM's own backend makes of them."""

from types import SimpleNamespace

import pytest
import torch
from mla_prefill.vllm_plugin import Usage, reset_usage, usage
from mla_prefill.vllm_plugin.prefill import VllmCPUPrefillBackend, VllmZenCPUPrefillBackend
from vllm.model_executor.layers.quantization.utils import quant_utils
from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

HEADS, NOPE, ROPE, VALUE = 4, 128, 64, 128
QUERIES, CONTEXT = [0, 70, 103, 140], [0, 50, 50, 81]


def create(backend):
    return backend(
        num_heads=HEADS,
        scale=(NOPE + ROPE) ** -0.5,
        kv_lora_rank=512,
        qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE,
        v_head_dim=VALUE,
        vllm_config=None,
    )


def offsets(rows):
    return torch.tensor(rows, dtype=torch.int32)


def chunk(**fields):
    return SimpleNamespace(
        index=0,
        request_slice=slice(0, 3),
        token_slice=slice(0, QUERIES[-1]),
        query_start_loc=offsets(QUERIES),
        cu_seq_lens=offsets(CONTEXT),
        **fields,
    )


def metadata(chunks):
    return SimpleNamespace(
        query_start_loc=offsets(QUERIES),
        max_query_len=70,
        chunked_context=SimpleNamespace(chunks=chunks) if chunks else None,
    )


def tensors(keys):
    generator = torch.Generator().manual_seed(keys)
    q = torch.randn(QUERIES[-1], HEADS, NOPE + ROPE, generator=generator)
    k = torch.randn(keys, HEADS, NOPE + ROPE, generator=generator)
    kv_nope = torch.randn(keys, HEADS, NOPE + VALUE, generator=generator).bfloat16()
    # As vLLM splits it off: rows of 256, of which the second half is meant.
    return q.bfloat16(), k.bfloat16(), kv_nope.split([NOPE, VALUE], dim=-1)[1]


@pytest.fixture(params=[VllmCPUPrefillBackend, VllmZenCPUPrefillBackend])
def backends(request):
    ours, reference = create(request.param).clone(), create(CPUSDPAMLAPrefillBackend)
    for backend in (ours, reference):
        backend.prepare_metadata(metadata([chunk()]))
    return ours, reference


def close(ours, reference):
    torch.testing.assert_close(ours.float(), reference.float(), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("extra", [{}, {"out": None, "output_scale": None}])
def test_new_tokens(backends, extra):
    ours, reference = backends
    q, k, v = tensors(QUERIES[-1])
    reset_usage()
    out, lse = ours.run_prefill_new_tokens(q=q, k=k, v=v, return_softmax_lse=True, **extra)
    expected = reference.run_prefill_new_tokens(q=q, k=k, v=v, return_softmax_lse=True)
    close(out, expected[0])
    close(lse, expected[1])
    alone = ours.run_prefill_new_tokens(q=q, k=k, v=v, return_softmax_lse=False, **extra)
    assert torch.equal(alone, out)
    counted = usage()
    assert (counted.new_tokens_calls, counted.new_tokens) == (2, 2 * QUERIES[-1])
    assert counted.seconds > 0
    reset_usage()
    assert usage() == Usage()
    with pytest.raises(ValueError):
        ours.run_prefill_new_tokens(q=q[:1], k=k, v=v, return_softmax_lse=False)
    assert usage() == Usage()


def test_out(backends):
    ours, _ = backends
    q, k, v = tensors(QUERIES[-1])
    out = torch.empty(QUERIES[-1], HEADS, VALUE, dtype=torch.bfloat16)
    assert ours.supports_out()
    result = ours.run_prefill_new_tokens(q=q, k=k, v=v, return_softmax_lse=False, out=out)
    assert result is out
    close(out, ours.run_prefill_new_tokens(q=q, k=k, v=v, return_softmax_lse=False))


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        pytest.param({}, {}, id="0.28"),
        pytest.param({"all_rows_active": False}, {}, id="0.30"),
        pytest.param({"all_rows_active": False}, {"out": None}, id="0.33"),
    ],
)
def test_context_chunk(backends, fields, extra):
    ours, reference = backends
    q, k, v = tensors(CONTEXT[-1])
    reset_usage()
    out, lse = ours.run_prefill_context_chunk(chunk=chunk(**fields), q=q, k=k, v=v, **extra)
    counted = usage()
    assert (counted.context_chunk_calls, counted.new_tokens_calls) == (1, 0)
    assert (counted.context_queries, counted.context_tokens) == (QUERIES[-1], CONTEXT[-1])
    # vLLM's own does not serve a request without context.
    assert not out[QUERIES[1] : QUERIES[2]].any()
    assert (lse[:, QUERIES[1] : QUERIES[2]] == float("-inf")).all()
    for begin, end, first, last in ((0, 70, 0, 50), (103, 140, 50, 81)):
        expected = reference.run_prefill_context_chunk(
            chunk=SimpleNamespace(
                query_start_loc=offsets([0, end - begin]), cu_seq_lens=offsets([0, last - first])
            ),
            q=q[begin:end],
            k=k[first:last],
            v=v[first:last],
        )
        close(out[begin:end], expected[0])
        close(lse[:, begin:end], expected[1])


def test_context_chunk_by_number(backends):
    """As vLLM had it up to 0.27."""
    ours, _ = backends
    q, k, v = tensors(CONTEXT[-1])
    by_chunk, _ = ours.run_prefill_context_chunk(chunk=chunk(), q=q, k=k, v=v)
    context = SimpleNamespace(cu_seq_lens=[offsets(CONTEXT)])
    ours.prepare_metadata(
        SimpleNamespace(query_start_loc=offsets(QUERIES), chunked_context=context)
    )
    by_number, _ = ours.run_prefill_context_chunk(chunk_idx=0, q=q, k=k, v=v)
    assert torch.equal(by_number, by_chunk)


def test_quantized_output():
    """vLLM asks before it has a backend write fp8: only one static scale is a number."""
    backend = create(VllmCPUPrefillBackend)
    assert backend.supports_quant_output(quant_utils.kFp8StaticTensorSym)
    for name in ("kFp8DynamicTensorSym", "kFp8DynamicTokenSym", "kFp8Dynamic128Sym"):
        assert not backend.supports_quant_output(getattr(quant_utils, name))
    assert not create(CPUSDPAMLAPrefillBackend).supports_quant_output(
        quant_utils.kFp8StaticTensorSym
    )
