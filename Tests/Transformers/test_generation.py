# SPDX-License-Identifier: Apache-2.0
"""Generated tokens are those of the model's own attention."""

import pytest
import torch
from conftest import SERVED
from tiny import build
from transformers import DynamicCache

from mla_prefill.transformers import LatentCache, disable, enable

GREEDY = dict(max_new_tokens=12, do_sample=False)


def left_padded(ids, lengths):
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, -length:] = 1
    return dict(input_ids=ids, attention_mask=mask)


@pytest.mark.parametrize("kind", SERVED)
def test_greedy_beams_and_left_padding(kind, prompts):
    model = build(kind)
    batch = left_padded(prompts(3, 19), [19, 4, 11])
    ways = [
        (dict(input_ids=prompts(2, 31)), GREEDY),
        (batch, GREEDY),
        (batch, dict(GREEDY, num_beams=3, num_return_sequences=2)),
    ]
    own = [model.generate(**inputs, **how) for inputs, how in ways]
    enable(model)
    for expected, (inputs, how) in zip(own, ways, strict=True):
        assert torch.equal(model.generate(**inputs, **how), expected)
        cache = LatentCache(model.config)
        assert torch.equal(model.generate(**inputs, **how, cache=cache), expected)


@pytest.mark.parametrize("kind", ["deepseek_v3", "minicpm3"])
def test_padded_turns(kind, prompts):
    """Turns of conversations, each padded on the left, on one cache."""
    model = build(kind)
    turns = [left_padded(prompts(3, 13), [13, 4, 1]), left_padded(prompts(3, 9), [2, 9, 7])]

    def tokens(cache):
        ids, mask = (torch.zeros(3, 0, dtype=torch.long) for _ in range(2))
        for turn in turns:
            ids = torch.cat((ids, turn["input_ids"]), 1)
            mask = torch.cat((mask, turn["attention_mask"]), 1)
            ids = model.generate(ids, attention_mask=mask, cache=cache, **GREEDY)
            mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
        return ids

    expected = tokens(DynamicCache(config=model.config))
    for switch in (enable, lambda model: model.set_attn_implementation("mla_prefill")):
        switch(model)
        for cache in (DynamicCache(config=model.config), LatentCache(model.config)):
            assert torch.equal(tokens(cache), expected)
        disable(model)
