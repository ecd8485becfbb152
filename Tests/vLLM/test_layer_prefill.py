# SPDX-License-Identifier: Apache-2.0
"""The attention backends' prefill by the layer, without an engine."""

from types import SimpleNamespace

import pytest
import torch
from mla_prefill import MLAPrefillLayer
from mla_prefill.vllm_plugin import layer_prefill, reset_usage, usage
from mla_prefill.vllm_plugin.amx_mla import PrefillAMXMLAImpl
from mla_prefill.vllm_plugin.cpu_mla import PrefillCPUMLAImpl
from mla_prefill.vllm_plugin.layer_prefill import LayerPrefill, projection_weights
from mla_prefill.vllm_plugin.prefill import VllmCPUPrefillBackend
from vllm.v1.attention.backends.mla.cpu_mla import CPUMLAImpl
from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

HEADS, RANK, NOPE, ROPE, VALUE = 4, 512, 128, 64, 128
SIZES = {
    "num_heads": HEADS,
    "scale": (NOPE + ROPE) ** -0.5,
    "kv_lora_rank": RANK,
    "qk_nope_head_dim": NOPE,
    "qk_rope_head_dim": ROPE,
    "v_head_dim": VALUE,
}
QUERIES = [0, 70, 103]


@pytest.mark.parametrize("scale_name", ["weight_scale_inv", "weight_scale"])
def test_fp8_blocks_go_as_they_are(scale_name):
    # Neither dimension is a multiple of its block: 6 heads of 20 and 30, and 200 latents.
    weight = torch.randn(300, 200).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2) + 0.5
    dense = torch.empty(300, 200)
    for row in range(300):
        for column in range(200):
            dense[row, column] = weight[row, column].float() * scale[row // 128, column // 128]
    layer = SimpleNamespace(weight=weight, weight_block_size=[128, 128], **{scale_name: scale})
    weights = projection_weights(layer, torch.bfloat16)
    assert weights["kv_b_proj"].data_ptr() == weight.data_ptr()
    q, latents, rope = (torch.randn(9, *shape).bfloat16() for shape in [(6, 24), (200,), (4,)])
    as_it_is, dequantized = (
        MLAPrefillLayer(6, 0.2, 200, 20, 4, 30, dtype=torch.bfloat16, **given).forward(
            q, latents, rope, query_start_loc=[0, 9]
        )
        for given in (weights, {"kv_b_proj": dense.bfloat16()})
    )
    assert torch.equal(as_it_is, dequantized)


def test_other_quantized_weights_are_what_vllm_says(monkeypatch):
    dense = torch.randn(300, 200)
    asked = []
    monkeypatch.setattr(
        layer_prefill,
        "get_and_maybe_dequant_weights",
        lambda layer, out_dtype: asked.append((layer, out_dtype)) or dense,
    )
    weight = torch.zeros(300, 200, dtype=torch.float8_e4m3fn)
    for block in ([64, 128], None):
        layer = SimpleNamespace(weight=weight, weight_block_size=block)
        weights = projection_weights(layer, torch.bfloat16)
        assert list(weights) == ["kv_b_proj"] and torch.equal(weights["kv_b_proj"], dense)
        assert asked.pop() == (layer, torch.bfloat16)


class UpProjection:
    """As much of vLLM's linear layer as its attention asks for."""

    def __init__(self):
        self.weight = torch.randn(HEADS * (NOPE + VALUE), RANK).bfloat16() / RANK**0.5
        self.quant_method = None

    def __call__(self, rows):
        return torch.nn.functional.linear(rows, self.weight), None


def implementation(kind, kv_b_proj):
    made = kind(
        **{name: SIZES[name] for name in ("num_heads", "scale", "kv_lora_rank", "v_head_dim")},
        head_size=RANK + ROPE,
        num_kv_heads=1,
        alibi_slopes=None,
        sliding_window=None,
        kv_cache_dtype="auto",
        logits_soft_cap=None,
        attn_type="decoder",
        kv_sharing_target_layer_name=None,
        q_lora_rank=None,
        qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE,
        qk_head_dim=NOPE + ROPE,
        kv_b_proj=kv_b_proj,
    )
    made.process_weights_after_loading(torch.bfloat16)
    return made


def metadata(backend, **changed):
    fields = {
        "query_start_loc": torch.tensor(QUERIES, dtype=torch.int32),
        "max_query_len": 70,
        "block_table": torch.zeros(2, 9, dtype=torch.int32),
        "chunked_context": None,
        "q_data_type": torch.bfloat16,
        "prefill_backend": backend(**SIZES, vllm_config=None),
        **changed,
    }
    prefill = SimpleNamespace(**fields)
    prefill.prefill_backend.prepare_metadata(prefill)
    return SimpleNamespace(prefill=prefill)


def arguments():
    generator = torch.Generator().manual_seed(0)

    def rows(*shape):
        return torch.randn(QUERIES[-1], *shape, generator=generator).bfloat16()

    # As vLLM splits them off: rows of wider tensors, and an output of rows after others'.
    latents = rows(RANK + ROPE)
    output = torch.full((7 + QUERIES[-1], HEADS * VALUE), 7.0, dtype=torch.bfloat16)
    return {
        "q": rows(HEADS, NOPE + ROPE),
        "kv_c_normed": latents[:, :RANK],
        "k_pe": latents[:, RANK:].unsqueeze(1),
        "kv_c_and_k_pe_cache": torch.zeros(3, 16, RANK + ROPE, dtype=torch.bfloat16),
        "k_scale": torch.ones(()),
        "output": output[7:],
    }


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


@pytest.mark.parametrize(
    "backend, changed",
    [
        pytest.param(CPUSDPAMLAPrefillBackend, {}, id="somebody else's backend"),
        pytest.param(VllmCPUPrefillBackend, {"chunked_context": object()}, id="context"),
    ],
)
def test_cpu_mla_goes_the_common_way(monkeypatch, backend, changed):
    common = []
    monkeypatch.setattr(CPUMLAImpl, "forward_mha", lambda self, *given: common.append(given))
    given = arguments()
    attn_metadata = metadata(backend)
    for name, value in changed.items():
        setattr(attn_metadata.prefill, name, value)
    implementation(PrefillCPUMLAImpl, UpProjection()).forward_mha(
        **given, attn_metadata=attn_metadata
    )
    names = ("q", "kv_c_normed", "k_pe", "kv_c_and_k_pe_cache")
    ((*tensors, passed_metadata, k_scale, output, passed_scale),) = common
    assert all(tensor is given[name] for tensor, name in zip(tensors, names, strict=True))
    assert passed_metadata is attn_metadata and k_scale is given["k_scale"]
    assert output is given["output"] and passed_scale is None


def test_weights_that_are_loaded_anew(monkeypatch):
    kv_b_proj = UpProjection()
    layer = implementation(PrefillCPUMLAImpl, kv_b_proj)
    kv_b_proj.weight = kv_b_proj.weight * 2
    layer.process_weights_after_loading(torch.bfloat16)
    again, once = arguments(), arguments()
    layer.forward_mha(**again, attn_metadata=metadata(VllmCPUPrefillBackend))
    implementation(PrefillCPUMLAImpl, kv_b_proj).forward_mha(
        **once, attn_metadata=metadata(VllmCPUPrefillBackend)
    )
    assert torch.equal(again["output"], once["output"])


def test_context_comes_from_the_cache(monkeypatch):
    """As under AMX_MLA: its step is the end of a sequence whose beginning is in the cache."""
    layer, whole, cached = implementation(PrefillCPUMLAImpl, UpProjection()), arguments(), 40
    layer.forward_mha(**whole, attn_metadata=metadata(VllmCPUPrefillBackend))
    monkeypatch.setattr(PrefillCPUMLAImpl, "_serves", LayerPrefill._serves)
    monkeypatch.setattr(PrefillCPUMLAImpl, "_context_lens", PrefillAMXMLAImpl._context_lens)
    first = QUERIES[1]
    step = {name: tensor[cached:first] for name, tensor in whole.items() if tensor.ndim > 1}
    # Blocks 2, 0 and half of 1.
    cache = torch.zeros(3, 16, RANK + ROPE, dtype=torch.bfloat16)
    slots = torch.cat([torch.arange(32, 48), torch.arange(16), torch.arange(16, 24)])
    tokens = torch.cat([whole["kv_c_normed"], whole["k_pe"].squeeze(1)], -1)[:cached]
    cache.view(-1, RANK + ROPE)[slots] = tokens
    output = torch.zeros_like(step["output"])
    step |= {"kv_c_and_k_pe_cache": cache, "output": output, "k_scale": torch.ones(())}
    prefill = SimpleNamespace(
        query_start_loc=torch.tensor([0, first - cached], dtype=torch.int32),
        block_table=torch.tensor([[2, 0, 1]], dtype=torch.int32),
        cpu_seq_lens=torch.tensor([first], dtype=torch.int32),
        extend_seq_lens=torch.tensor([first - cached], dtype=torch.int32),
    )
    reset_usage()
    layer.forward_mha(**step, attn_metadata=SimpleNamespace(prefill=prefill))
    assert usage().context_tokens == cached
    torch.testing.assert_close(
        output.float(), whole["output"][cached:first].float(), atol=2e-2, rtol=2e-2
    )
