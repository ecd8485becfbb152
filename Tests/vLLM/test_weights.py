# SPDX-License-Identifier: Apache-2.0
"""The layer's weights: of which kinds they are taken, and that they follow vLLM's."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mla_prefill import MLAPrefillLayer
from mla_prefill.vllm_plugin import layer_prefill, packed_layer, reset_usage, usage
from mla_prefill.vllm_plugin.cpu_mla import PrefillCPUMLAImpl
from mla_prefill.vllm_plugin.prefill import VllmCPUPrefillBackend
from mla_prefill.vllm_plugin.threads import announce_refusal
from quantized import Fp8, fp8_weight, scales
from without_engine import RANK, ROWS, UpProjection, arguments, implementation, metadata


def prefill(layer):
    """The output of a step, and how many layer calls it was."""
    step = arguments()
    reset_usage()
    layer.forward_mha(**step, attn_metadata=metadata(VllmCPUPrefillBackend))
    return step["output"], usage().layer_calls


def written_in_place(kv_b_proj):
    kv_b_proj.weight.mul_(2)


def loaded(kv_b_proj):
    """As vLLM's weight loaders write, past torch's count of versions."""
    kv_b_proj.weight.data.copy_(kv_b_proj.weight * 2)


def one_number_loaded(kv_b_proj):
    kv_b_proj.weight.data[130, 7] = 30


def replaced(kv_b_proj):
    kv_b_proj.weight = kv_b_proj.weight * 2


def other_memory(kv_b_proj):
    kv_b_proj.weight.data = kv_b_proj.weight * 2


@pytest.fixture
def kv_b_proj():
    return UpProjection()


class Module(torch.nn.Linear):
    """vLLM's layers are modules, and return a bias beside the product."""

    quant_method = None

    def __init__(self):
        super().__init__(RANK, ROWS, bias=False, dtype=torch.bfloat16)
        self.requires_grad_(False)

    def forward(self, rows):
        return super().forward(rows), None


@pytest.mark.parametrize("kind", [UpProjection, Module])
@pytest.mark.parametrize(
    "update", [written_in_place, loaded, one_number_loaded, replaced, other_memory]
)
def test_weights_that_change(kind, update):
    kv_b_proj = kind()
    layer = implementation(PrefillCPUMLAImpl, kv_b_proj)
    before, _ = prefill(layer)
    if update is replaced and kind is Module:
        kv_b_proj.weight = torch.nn.Parameter(kv_b_proj.weight * 2, requires_grad=False)
    else:
        update(kv_b_proj)
    after, calls = prefill(layer)
    anew, _ = prefill(implementation(PrefillCPUMLAImpl, kv_b_proj))
    assert not torch.equal(before, after)
    assert torch.equal(after, anew)
    assert calls == 1


def test_another_module(kv_b_proj):
    layer, other = implementation(PrefillCPUMLAImpl, kv_b_proj), UpProjection()
    layer.kv_b_proj = other
    anew, _ = prefill(implementation(PrefillCPUMLAImpl, other))
    assert torch.equal(prefill(layer)[0], anew)


def test_weights_are_packed_once_while_they_stay(monkeypatch, kv_b_proj):
    made = []
    monkeypatch.setattr(
        packed_layer, "MLAPrefillLayer", lambda **given: made.append(0) or MLAPrefillLayer(**given)
    )
    layer = implementation(PrefillCPUMLAImpl, kv_b_proj)
    for _ in range(3):
        prefill(layer)
    # The same numbers elsewhere are the same weights.
    kv_b_proj.weight = kv_b_proj.weight.clone()
    prefill(layer)
    assert made == [0]


def test_weights_that_are_loaded_anew(kv_b_proj):
    layer = implementation(PrefillCPUMLAImpl, kv_b_proj)
    kv_b_proj.weight = kv_b_proj.weight * 2
    layer.process_weights_after_loading(torch.bfloat16)
    again, _ = prefill(layer)
    assert torch.equal(again, prefill(implementation(PrefillCPUMLAImpl, kv_b_proj))[0])


def test_scales_that_change():
    """Of a quantized linear layer, whose weight stays."""
    quantized = Fp8(fp8_weight(), [128, 128], scales(8, 4))
    layer = implementation(PrefillCPUMLAImpl, quantized)
    prefill(layer)
    quantized.weight_scale.data[1, 1] = 0.2
    anew, _ = prefill(implementation(PrefillCPUMLAImpl, quantized))
    assert torch.equal(prefill(layer)[0], anew)


def test_weights_that_vllm_releases(kv_b_proj):
    """As AMX_MLA does once it has packed its own."""
    layer = implementation(PrefillCPUMLAImpl, kv_b_proj)
    before, _ = prefill(layer)
    kv_b_proj.weight = torch.empty(0)
    after, calls = prefill(layer)
    assert torch.equal(before, after) and calls == 1


class Adapted:
    """As vLLM wraps a layer for LoRA."""

    def __init__(self, base_layer):
        self.base_layer, self.weight = base_layer, base_layer.weight

    def __call__(self, rows):
        return self.base_layer(rows)[0] * 2, None


class Unreadable:
    """A layer that nobody knows the weights of."""

    quant_method = None

    def __init__(self, base):
        self._base = base

    def __call__(self, rows):
        return self._base(rows)[0] * 2, None


class Doubled(UpProjection):
    """A layer that does more than its weights say."""

    def __init__(self, base):
        super().__init__()
        self.weight = base.weight

    def __call__(self, rows):
        return super().__call__(rows)[0] * 2, None


@pytest.mark.parametrize(
    "kind, reason",
    [
        (Adapted, "has an adapter (Adapted)"),
        (Unreadable, "cannot be packed"),
        (Doubled, "does other than its weights say"),
    ],
)
def test_more_than_weights_goes_vllms_way(caplog, monkeypatch, kv_b_proj, kind, reason):
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    announce_refusal.cache_clear()
    layer = implementation(PrefillCPUMLAImpl, kv_b_proj)
    before, _ = prefill(layer)
    layer.kv_b_proj = kind(kv_b_proj)
    for _ in range(2):
        after, calls = prefill(layer)
        assert calls == 0
        assert not torch.equal(before, after)
    (line,) = (
        record.getMessage() for record in caplog.records if record.name == "vllm.mla_prefill"
    )
    assert line.startswith("MLA prefill under CPU_MLA goes vLLM's own way: kv_b_proj")
    assert reason in line
    layer.kv_b_proj = kv_b_proj
    again, calls = prefill(layer)
    assert torch.equal(before, again) and calls == 1


def engine_config(**changed):
    kinds = {
        "enable_chunked_prefill": "scheduler_config",
        "enable_prefix_caching": "cache_config",
    }
    config = SimpleNamespace(
        scheduler_config=SimpleNamespace(enable_chunked_prefill=False),
        cache_config=SimpleNamespace(enable_prefix_caching=False),
        kv_transfer_config=None,
        speculative_config=None,
    )
    for name, value in changed.items():
        setattr(getattr(config, kinds[name]) if name in kinds else config, name, value)
    return config


@pytest.mark.parametrize(
    "config, algorithm",
    [
        (engine_config(), "up_projected"),
        (engine_config(enable_chunked_prefill=True), "auto"),
        (engine_config(enable_prefix_caching=True), "auto"),
        (engine_config(kv_transfer_config=object()), "auto"),
        (engine_config(speculative_config=object()), "auto"),
        (SimpleNamespace(), "auto"),
        (None, "auto"),
    ],
)
def test_the_second_layout_is_packed_for_context_alone(monkeypatch, kv_b_proj, config, algorithm):
    asked = []
    monkeypatch.setattr(layer_prefill, "get_current_vllm_config_or_none", lambda: config)
    monkeypatch.setattr(
        packed_layer,
        "MLAPrefillLayer",
        lambda **given: asked.append(given["algorithm"]) or MLAPrefillLayer(**given),
    )
    implementation(PrefillCPUMLAImpl, kv_b_proj)
    assert asked == [algorithm]
