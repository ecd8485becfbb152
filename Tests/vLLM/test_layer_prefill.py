# SPDX-License-Identifier: Apache-2.0
"""The attention backends' prefill by the layer, without an engine."""

from types import SimpleNamespace

import pytest
import torch
from mla_prefill.vllm_plugin import reset_usage, usage
from mla_prefill.vllm_plugin.amx_mla import PrefillAMXMLAImpl
from mla_prefill.vllm_plugin.cpu_mla import PrefillCPUMLAImpl
from mla_prefill.vllm_plugin.layer_prefill import LayerPrefill
from mla_prefill.vllm_plugin.prefill import VllmCPUPrefillBackend
from vllm.v1.attention.backends.mla.cpu_mla import CPUMLAImpl
from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend
from without_engine import (
    QUERIES,
    RANK,
    ROPE,
    UpProjection,
    arguments,
    implementation,
    metadata,
)


def test_cpu_mla():
    kv_b_proj, ours, theirs = UpProjection(), arguments(), arguments()
    reset_usage()
    implementation(PrefillCPUMLAImpl, kv_b_proj).forward_mha(
        **ours, attn_metadata=metadata(VllmCPUPrefillBackend)
    )
    counted = usage()
    assert (counted.layer_calls, counted.new_tokens) == (1, QUERIES[-1])
    assert counted.new_tokens_calls == 0
    assert counted.seconds > 0
    implementation(CPUMLAImpl, kv_b_proj).forward_mha(
        **theirs, attn_metadata=metadata(CPUSDPAMLAPrefillBackend)
    )
    torch.testing.assert_close(
        ours["output"].float(), theirs["output"].float(), atol=2e-2, rtol=2e-2
    )


def test_cpu_mla_with_fp8_output():
    layer = implementation(PrefillCPUMLAImpl, UpProjection())
    attn_metadata = metadata(VllmCPUPrefillBackend)
    plain = arguments()
    layer.forward_mha(**plain, attn_metadata=attn_metadata)
    scale = torch.tensor(0.01)
    output = torch.zeros_like(plain["output"], dtype=torch.float8_e4m3fn)
    layer.forward_mha(
        **{**plain, "output": output}, attn_metadata=attn_metadata, output_scale=scale
    )
    torch.testing.assert_close(
        output.float() * scale, plain["output"].float(), atol=2e-3, rtol=0.07
    )


def test_somebody_elses_prefill_backend_goes_the_common_way(monkeypatch):
    common = []
    monkeypatch.setattr(CPUMLAImpl, "forward_mha", lambda self, *given: common.append(given))
    given = arguments()
    attn_metadata = metadata(CPUSDPAMLAPrefillBackend)
    implementation(PrefillCPUMLAImpl, UpProjection()).forward_mha(
        **given, attn_metadata=attn_metadata
    )
    names = ("q", "kv_c_normed", "k_pe", "kv_c_and_k_pe_cache")
    ((*tensors, passed_metadata, k_scale, output, passed_scale),) = common
    assert all(tensor is given[name] for tensor, name in zip(tensors, names, strict=True))
    assert passed_metadata is attn_metadata and k_scale is given["k_scale"]
    assert output is given["output"] and passed_scale is None


CONTEXT = torch.tensor([40, 0], dtype=torch.int32)


def by_cpu_mla(monkeypatch, new):
    return {"chunked_context": SimpleNamespace(context_lens=CONTEXT, chunks=[])}


def by_amx_mla(monkeypatch, new):
    monkeypatch.setattr(PrefillCPUMLAImpl, "_layer", LayerPrefill._layer)
    monkeypatch.setattr(PrefillCPUMLAImpl, "_context_lens", PrefillAMXMLAImpl._context_lens)
    return {"cpu_seq_lens": CONTEXT + new, "extend_seq_lens": new}


@pytest.mark.parametrize("fields", [by_cpu_mla, by_amx_mla])
def test_context_comes_from_the_cache(monkeypatch, fields):
    """A step whose first request is the end of a sequence with its beginning in the cache."""
    layer, whole = implementation(PrefillCPUMLAImpl, UpProjection()), arguments()
    layer.forward_mha(**whole, attn_metadata=metadata(VllmCPUPrefillBackend))
    cached = int(CONTEXT[0])
    step = {name: tensor[cached:] for name, tensor in whole.items() if tensor.ndim > 1}
    # Blocks 2, 0 and half of 1.
    cache = torch.zeros(3, 16, RANK + ROPE, dtype=torch.bfloat16)
    slots = torch.cat([torch.arange(32, 48), torch.arange(16), torch.arange(16, 24)])
    tokens = torch.cat([whole["kv_c_normed"], whole["k_pe"].squeeze(1)], -1)[:cached]
    cache.view(-1, RANK + ROPE)[slots] = tokens
    output = torch.zeros_like(step["output"])
    step |= {"kv_c_and_k_pe_cache": cache, "output": output, "k_scale": torch.ones(())}
    offsets = torch.tensor([0, *QUERIES[1:]], dtype=torch.int32)
    offsets[1:] -= cached
    attn_metadata = metadata(
        VllmCPUPrefillBackend,
        query_start_loc=offsets,
        block_table=torch.tensor([[2, 0, 1], [0, 0, 0]], dtype=torch.int32),
        **fields(monkeypatch, offsets.diff()),
    )
    reset_usage()
    layer.forward_mha(**step, attn_metadata=attn_metadata)
    counted = usage()
    assert (counted.layer_calls, counted.context_tokens) == (1, cached)
    torch.testing.assert_close(
        output.float(), whole["output"][cached:].float(), atol=2e-2, rtol=2e-2
    )
    # vLLM can keep a cache of another type than activations.
    step["kv_c_and_k_pe_cache"] = cache.half()
    common = []
    monkeypatch.setattr(CPUMLAImpl, "forward_mha", lambda self, *given: common.append(given))
    layer.forward_mha(**step, attn_metadata=attn_metadata)
    assert len(common) == 1
