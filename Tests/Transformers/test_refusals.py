# SPDX-License-Identifier: Apache-2.0
"""What is not served is refused, and the text names the argument."""

import pytest
import torch
from test_numbers import Latents
from test_register import llama
from tiny import build

from mla_prefill.transformers import disable, enable
from mla_prefill.transformers.attention import attention_forward


@pytest.fixture
def model():
    made = build("deepseek_v3")
    enable(made)
    return made


def test_what_is_no_model_of_theirs():
    for given in (torch.nn.Linear(2, 2), None, "deepseek"):
        for switch in (enable, disable):
            with pytest.raises(TypeError, match="^model: must be a transformers.PreTrainedModel"):
                switch(given)


def test_models_without_latents():
    model = llama()
    with pytest.raises(ValueError, match="^model = LlamaForCausalLM: must have .* kv_b_proj"):
        enable(model)
    disable(model)
    assert model.config._attn_implementation == "sdpa"


def test_gradients(model, prompts):
    ids = prompts(1, 7)
    with torch.enable_grad(), pytest.raises(ValueError, match="^query: must not require gradients"):
        model(ids)
    disable(model)
    with torch.enable_grad():
        model(ids).logits.sum().backward()
    enable(model)
    model(ids)
    with torch.enable_grad(), torch.inference_mode():
        model(ids)


def test_dropout(prompts):
    model = build("deepseek_v3", attention_dropout=0.5)
    enable(model)
    model(prompts(1, 7))
    model.train()
    with pytest.raises(ValueError, match=r"^dropout = 0.5: must be 0: set the model to eval"):
        model(prompts(1, 7))


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (torch.ones(1, 1, 7, 7).bool(), "attention_mask: must be causal"),
        (torch.eye(7).bool()[None, None], "attention_mask: must be causal"),
        (torch.rand(1, 1, 7, 7), "attention_mask: .*biases are not served"),
    ],
)
def test_masks(model, mask, text, prompts):
    with pytest.raises(ValueError, match=f"^{text}"):
        model(prompts(1, 7), attention_mask=mask)


@pytest.mark.parametrize(
    ("states", "text"),
    [
        (
            (torch.zeros(1, 1, 5, 9), torch.zeros(1, 1, 5, 2)),
            r"key = \(1, 1, 5, 9\): must be .* 8\)",
        ),
        ((torch.zeros(1, 2, 5, 8), torch.zeros(1, 1, 5, 2)), r"key = \(1, 2, 5, 8\): must be"),
        ((torch.zeros(2, 1, 5, 8), torch.zeros(2, 1, 5, 2)), r"key = \(2, 1, 5, 8\): must be"),
        ((torch.zeros(1, 1, 5, 8), torch.zeros(1, 1, 4, 2)), r"value = \(1, 1, 4, 2\): must be"),
        ((torch.zeros(1, 1, 5, 8).half(), torch.zeros(1, 1, 5, 2)), "key.dtype = torch.float16"),
    ],
)
def test_latents_of_others(states, text):
    module = Latents(heads=2, rank=8, nope=4, rope=2, v=3)
    with pytest.raises(ValueError, match=f"^{text}"):
        attention_forward(module, torch.zeros(1, 2, 1, 6), *states, None)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_devices(name):
    states = {each: torch.zeros(1, 2, 3, 4) for each in ("query", "key", "value")}
    states[name] = states[name].to("meta")
    with pytest.raises(ValueError, match=rf"^{name}.device = meta: must be cpu"):
        attention_forward(torch.nn.Module(), *states.values(), None)


def test_packed_sequences(model, prompts):
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
    with pytest.raises(ValueError, match="^attention_mask: must be causal"):
        model(prompts(1, 7), position_ids=positions, use_cache=False)
    with pytest.raises(ValueError, match="^cu_seq_lens_q: must be None: packed sequences"):
        model(prompts(1, 7), cu_seq_lens_q=torch.tensor([0, 3, 7], dtype=torch.int32))


def test_types(prompts):
    model = build("deepseek_v3", torch.float64)
    with pytest.raises(ValueError, match="float64"):
        enable(model)
    assert model.config._attn_implementation == "sdpa"


def test_weights_elsewhere():
    model = build("deepseek_v3").to("meta")
    with pytest.raises(ValueError, match="kv_b_proj is on meta: all weights must be on the CPU"):
        enable(model)


def test_other_implementations_after_enable(model, prompts):
    ids = prompts(2, 9)
    ours = model(ids).logits
    plain = build("deepseek_v3")
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        plain.set_attn_implementation(implementation)
        assert torch.equal(model(ids).logits, plain(ids).logits)
    model.set_attn_implementation("mla_prefill")
    assert torch.equal(model(ids).logits, ours)


def test_enabled_twice_and_disabled(model):
    enable(model)
    disable(model)
    assert model.config._attn_implementation == "sdpa"
    assert not any("expand_kv" in vars(module) for module in model.modules())
    disable(model)
