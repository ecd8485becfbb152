# SPDX-License-Identifier: Apache-2.0
"""attn_implementation="mla_prefill" for models as they are."""

import pytest
import torch
from test_generation import GREEDY, left_padded
from tiny import VOCABULARY, build
from transformers import (
    BertConfig,
    BertModel,
    DogeConfig,
    DogeForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from mla_prefill.transformers import register

SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=96,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    initializer_range=0.2,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=1,
)


def llama(**changes):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).eval()


@pytest.fixture(params=["llama", "deepseek_v3", "minicpm3"])
def model(request):
    register()
    return llama() if request.param == "llama" else build(request.param)


def test_logits(model, prompts):
    ids, found = prompts(2, 29), {}
    for implementation in ("eager", "sdpa", "mla_prefill"):
        model.set_attn_implementation(implementation)
        cache, steps = None, []
        for part in ids.split([17, 5, 5, 1, 1], 1):
            output = model(part, cache=cache, use_cache=True)
            cache = output.cache
            steps.append(output.logits)
        found[implementation] = torch.cat(steps, 1)
    ours, sdpas = ((found[name] - found["eager"]).abs().max() for name in ("mla_prefill", "sdpa"))
    assert ours <= 1.5 * sdpas + 2e-5


def test_generation(model, prompts):
    batch = left_padded(prompts(3, 19), [19, 4, 11])
    ways = [
        GREEDY,
        dict(GREEDY, num_beams=3),
        dict(GREEDY, cache_implementation="static", disable_compile=True),
    ]
    own = [model.generate(**batch, **how) for how in ways]
    model.set_attn_implementation("mla_prefill")
    for how, expected in zip(ways, own, strict=True):
        assert torch.equal(model.generate(**batch, **how), expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(model, side, prompts):
    model.set_attn_implementation("mla_prefill")
    ids, mask = prompts(3, 17), torch.zeros(3, 17, dtype=torch.long)
    for row, length in enumerate((17, 1, 8)):
        mask[row, slice(17 - length, None) if side == "left" else slice(length)] = 1
    together = model(
        ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)
    ).logits
    assert bool(together.isfinite().all())
    for row in range(3):
        seen = mask[row].bool()
        assert (together[row, seen] - model(ids[row, seen][None]).logits[0]).abs().max() < 1e-4


def test_gradients(model, prompts):
    """Of a padded batch, those of SDPA."""
    ids, mask = prompts(3, 17), torch.ones(3, 17, dtype=torch.long)
    mask[1, 9:] = mask[2, 1:] = 0
    labels, found = ids.masked_fill(mask == 0, -100), {}
    for implementation in ("sdpa", "mla_prefill"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        with torch.enable_grad():
            model(ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        found[implementation] = {name: each.grad for name, each in model.named_parameters()}
    for name, ours in found["mla_prefill"].items():
        sdpas = found["sdpa"][name]
        assert (ours is None) == (sdpas is None)
        assert ours is None or (ours - sdpas).norm() <= 1e-4 * (sdpas.norm() + 1), name


def test_attention_to_all(prompts):
    """Of an encoder, whose tokens see those behind them."""
    register()
    torch.manual_seed(0)
    sizes = {name: value for name, value in SIZES.items() if name != "eos_token_id"}
    model = BertModel(BertConfig(**sizes)).eval()
    ids, mask = prompts(3, 17), torch.ones(3, 17, dtype=torch.long)
    mask[1, 9:] = mask[2, 1:] = 0
    for given in (None, mask):
        model.set_attn_implementation("sdpa")
        expected = model(ids, attention_mask=given).last_hidden_state
        model.set_attn_implementation("mla_prefill")
        found = model(ids, attention_mask=given).last_hidden_state
        seen = torch.ones_like(mask) if given is None else given
        assert (found - expected)[seen.bool()].abs().max() < 1e-4


def test_windows_without_effect(prompts):
    register()
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16)).eval()
    short, long = prompts(2, 15), prompts(2, 17)
    expected = model(short).logits
    model.set_attn_implementation("mla_prefill")
    assert (model(short).logits - expected).abs().max() < 1e-4
    with pytest.raises(ValueError, match=r"\(sliding_window = 16\)"):
        model(long)


@pytest.mark.parametrize(
    ("config", "make", "text"),
    [
        # It adds to its masks.
        (DogeConfig, DogeForCausalLM, "^attention_mask: .*biases are not served"),
        (Gemma2Config, Gemma2ForCausalLM, "^softcap: must be None: capped scores are not served"),
        (GptOssConfig, GptOssForCausalLM, "^s_aux: must be None: attention sinks are not served"),
    ],
)
def test_other_attention_is_refused_by_name(config, make, text, prompts):
    register()
    model = make(config(**SIZES)).eval()
    model.set_attn_implementation("mla_prefill")
    with pytest.raises(ValueError, match=text):
        model(prompts(1, 8))
