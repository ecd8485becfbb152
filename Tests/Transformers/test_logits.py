# SPDX-License-Identifier: Apache-2.0
"""Logits of every served class against those of the model's own attention."""

import copy

import pytest
import torch
from conftest import SERVED
from tiny import VOCABULARY, build

from mla_prefill.transformers import disable, enable


def logits(model, ids, mask=None):
    """Of a prompt in two steps, five tokens and three single ones, by one cache."""
    results, cache, done = [], None, 0
    length = ids.shape[1]
    for step in (length - 13, 5, 5, 1, 1, 1):
        seen = None if mask is None else mask[:, : done + step]
        output = model(
            input_ids=ids[:, done : done + step], attention_mask=seen, cache=cache, use_cache=True
        )
        cache, done = output.cache, done + step
        results.append(output.logits)
    return torch.cat(results, 1)


def far(results, expected):
    return float((results - expected).abs().max())


@pytest.mark.parametrize("kind", SERVED)
def test_as_exact_as_sdpa(kind, prompts):
    model = build(kind)
    ids = prompts(2, 37)
    found = {}
    for implementation in ("eager", "sdpa", "mla_prefill"):
        if implementation == "mla_prefill":
            enable(model)
        else:
            model.set_attn_implementation(implementation)
        found[implementation] = logits(model, ids)
    ours, sdpas = (far(found[name], found["eager"]) for name in ("mla_prefill", "sdpa"))
    print(f"{kind}: from eager's, of {found['eager'].std():.2f}: {ours:.1e}, SDPA's {sdpas:.1e}")
    assert ours <= 1.5 * sdpas + 2e-5
    disable(model)
    assert torch.equal(logits(model, ids), found["sdpa"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_as_exact_as_sdpa_in_narrow_types(dtype, prompts):
    """By the root mean square from the same weights in float32."""
    model = build("deepseek_v3", dtype)
    wide, ids = copy.deepcopy(model).float(), prompts(4, 61)
    wide.set_attn_implementation("eager")
    expected = logits(wide, ids)
    sdpas = (logits(model, ids) - expected).square().mean().sqrt()
    enable(model)
    ours = (logits(model, ids) - expected).square().mean().sqrt()
    print(f"{dtype}: from float32's, of {expected.std():.2f}: {ours:.1e}, SDPA's {sdpas:.1e}")
    assert ours <= 1.15 * sdpas


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", SERVED)
def test_padded_batches_are_each_request_alone(kind, side, prompts):
    model = build(kind)
    ids, lengths = prompts(4, 23), [23, 1, 9, 22]
    mask = torch.zeros(4, 23, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, slice(23 - length, None) if side == "left" else slice(length)] = 1
    enable(model)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    together = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    assert bool(together.isfinite().all())
    for row in range(4):
        seen = mask[row].bool()
        alone = model(input_ids=ids[row, seen][None]).logits[0]
        assert far(together[row, seen], alone) < 1e-4
    assert together.shape == (4, 23, VOCABULARY)
