# SPDX-License-Identifier: Apache-2.0
"""kv_b_proj as the model has it at the time of a call."""

import copy
import io

import pytest
import torch
from tiny import build
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers import DeepseekV3ForCausalLM

from mla_prefill.transformers import disable, enable


class Quantized(torch.nn.Module):
    """A linear layer that keeps int8 and a scale a row, as quantising libraries do."""

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        self.weight = torch.nn.Parameter((linear.weight / scale).round().to(torch.int8), False)
        self.register_buffer("scale", scale)

    def forward(self, states):
        return torch.nn.functional.linear(
            states, self.weight.to(states.dtype) * self.scale.to(states.dtype)
        )


class Packed(torch.nn.Module):
    """Another, which has no weight at all, and parameters of no use to others."""

    def __init__(self, linear):
        super().__init__()
        self.register_buffer("words", linear.weight.t().contiguous())

    def forward(self, states):
        return states @ self.words.to(states.dtype)


class Adapted(torch.nn.Module):
    """Low-rank changes beside a frozen layer, which its ``weight`` knows nothing of."""

    def __init__(self, linear):
        super().__init__()
        self.base = linear
        rows, rank = linear.weight.shape
        self.a, self.b = torch.nn.Linear(rank, 4, bias=False), torch.nn.Linear(4, rows, bias=False)

    @property
    def weight(self):
        return self.base.weight

    def forward(self, states):
        return self.base(states) + self.b(self.a(states))


def projections(model):
    return [each for each in model.modules() if hasattr(each, "kv_b_proj")]


def assert_follows(model, ids):
    """That the model computes what it does without being switched."""
    plain = copy.deepcopy(model)
    disable(plain)
    plain.set_attn_implementation("eager")
    difference = (model(ids).logits - plain(ids).logits).abs().max()
    assert difference < (1e-4 if model.dtype == torch.float32 else 0.3)


@pytest.fixture
def model():
    made = build("deepseek_v3")
    enable(made)
    return made


def test_written_to(model, prompts):
    ids = prompts(2, 9)
    before = model(ids).logits
    for module in projections(model):
        module.kv_b_proj.weight.mul_(-0.5)
    assert (model(ids).logits - before).abs().max() > 0.1
    assert_follows(model, ids)


def test_replaced(model, prompts):
    ids = prompts(2, 9)
    # Twice: of new ones neither has been written to.
    for _ in range(2):
        model(ids)
        for module in projections(model):
            weight = torch.randn_like(module.kv_b_proj.weight) * 0.1
            module.kv_b_proj.weight = torch.nn.Parameter(weight)
        assert_follows(model, ids)
    for module in projections(model):
        module.kv_b_proj = torch.nn.Linear(*reversed(module.kv_b_proj.weight.shape), bias=False)
    assert_follows(model, ids)


@pytest.mark.parametrize("kind", [Quantized, Packed, Adapted])
def test_other_linear_layers(kind, prompts):
    model, ids = build("deepseek_v3"), prompts(2, 9)
    for module in projections(model):
        module.kv_b_proj = kind(module.kv_b_proj)
    enable(model)
    assert_follows(model, ids)
    for module in projections(model):
        part = {Quantized: "scale", Packed: "words", Adapted: "b.weight"}[kind]
        module.kv_b_proj.state_dict()[part].mul_(2)
    assert_follows(model, ids)


def test_torchao(prompts):
    """Weights are tensors of a class of its own."""
    model, ids = build("deepseek_v3", torch.bfloat16), prompts(2, 9)
    quantize_(model, Int8WeightOnlyConfig())
    enable(model)
    assert_follows(model, ids)


def test_hooks_on_linear_layers(model, prompts):
    ids = prompts(2, 9)
    model(ids)
    for module in projections(model):
        module.kv_b_proj.register_forward_hook(lambda layer, given, result: 2 * result)
        module.kv_b_proj.weight.mul_(1)
    assert_follows(model, ids)


def test_biased_projections_are_refused():
    model = build("deepseek_v3")
    for module in projections(model):
        rows, rank = module.kv_b_proj.weight.shape
        module.kv_b_proj = torch.nn.Linear(rank, rows, bias=True)
    with pytest.raises(ValueError, match="expand_kv is not kv_b_proj alone"):
        enable(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types_after_enable(model, dtype, prompts):
    ids = prompts(2, 9)
    model(ids)
    assert_follows(model.to(dtype), ids)
    assert_follows(model.to(torch.float32), ids)


def test_copies_and_files(model, prompts, tmp_path):
    ids = prompts(2, 9)
    expected = model(ids).logits
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(ids).logits, expected)
        for module in projections(other):
            assert module.expand_kv.module is module
            module.kv_b_proj.weight.zero_()
        assert torch.equal(model(ids).logits, expected)
        assert not torch.equal(other(ids).logits, expected)
    model.save_pretrained(tmp_path)
    loaded = DeepseekV3ForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    enable(loaded)
    assert torch.equal(loaded(ids).logits, expected)
