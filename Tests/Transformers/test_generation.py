# SPDX-License-Identifier: Apache-2.0
"""Generated tokens are those of the model's own attention."""

import pytest
import torch
from conftest import SERVED
from tiny import build

from mla_prefill.transformers import LatentCache, enable

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
