# SPDX-License-Identifier: Apache-2.0
"""Masks and the ranges of keys that stand for them."""

import random

import pytest
import torch
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)

from mla_prefill.transformers.masks import key_ranges_mask, read_ranges


def spelled(ranges, queries, keys):
    """``[batch, 1, queries, keys]``, True where a query sees a key."""
    seen = torch.zeros(len(ranges.begins), 1, queries, keys, dtype=torch.bool)
    for request, (begin, end) in enumerate(zip(ranges.begins, ranges.ends, strict=True)):
        for query in range(queries):
            seen[request, 0, query, begin : max(min(end, ranges.first + query + 1), begin)] = True
    return seen if ranges.seen is None else seen & ranges.seen[:, None, None]


def padding(batch, keys, side):
    mask = torch.zeros(batch, keys, dtype=torch.bool)
    for row in mask:
        count = random.randint(1, keys)
        row[slice(keys - count, None) if side == "left" else slice(count)] = True
        if side == "between":
            row[random.randrange(keys) :] = True
    return mask


@pytest.mark.parametrize("seed", range(60))
def test_what_transformers_asks_for(seed):
    random.seed(seed)
    batch, queries, cached = random.randint(1, 4), random.randint(1, 6), random.choice([0, 0, 1, 9])
    total = cached + queries
    # Keys that a cache has dropped at its begin, and such as it has room for.
    dropped = random.choice([0, 0, random.randint(0, cached)])
    length = random.choice([total, total + random.randint(1, 5)]) - dropped
    side = random.choice([None, "left", "right", "between"])
    mask = None if side is None else padding(batch, total, side)
    if mask is not None and random.random() < 0.3:
        mask = mask[:, : random.randint(dropped + 1, total)]
    asked = dict(
        batch_size=batch,
        q_length=queries,
        kv_length=length,
        q_offset=cached,
        kv_offset=dropped,
        attention_mask=mask,
    )
    expected = sdpa_mask(**asked, allow_is_causal_skip=False).expand(batch, -1, -1, -1)
    # As transformers itself hands it on; and with a window that hides nothing.
    wide = and_masks(causal_mask_function, sliding_window_causal_mask_function(length + 1))
    for more in ({}, dict(mask_function=wide, local_size=length + 1)):
        ranges = read_ranges(key_ranges_mask(**asked, **more), batch, queries, length, True)
        seen = spelled(ranges, queries, length)
        told = expected.any(3, keepdim=True)
        assert torch.equal(seen & told, expected)
    # A mask of the caller's, of either kind.
    added = torch.where(expected, 0.0, torch.finfo(torch.float32).min)
    for own in (expected, added, torch.where(expected, 0.0, -torch.inf)):
        ranges = read_ranges(own, batch, queries, length, True)
        assert torch.equal(spelled(ranges, queries, length) & told, expected)


def test_none_where_nothing_is_hidden():
    everything = torch.ones(3, 9, dtype=torch.bool)
    for mask in (None, everything):
        assert key_ranges_mask(3, 4, 9, q_offset=5, attention_mask=mask) is None
    assert read_ranges(None, 3, 4, 9, True).first == 5
    # Who needs one reads it, as an indexer does.
    needed = dict(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    for function, last in ((causal_mask_function, 5), (bidirectional_mask_function, 9)):
        mask = key_ranges_mask(3, 4, 9, q_offset=5, mask_function=function, **needed)
        assert torch.equal(mask, torch.ones(3, 1, 4, 9).tril(last).bool())
    # Caches with room for more keys need one whatever the model.
    assert key_ranges_mask(3, 4, 12, q_offset=5, **needed).shape == (3, 1, 1, 4)
    # Keys that a cache will have.
    ranges = read_ranges(key_ranges_mask(3, 4, 12, q_offset=5), 3, 4, 12, True)
    assert (ranges.ends, ranges.first) == ([9, 9, 9], 5)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (torch.ones(2, 5), "must be None or a tensor of 4 dimensions"),
        ("causal", "must be None or a tensor of 4 dimensions, not str"),
        (torch.ones(2, 1, 3, 5, dtype=torch.int64), r"dtype = torch.int64: must be bool"),
        (torch.ones(2, 1, 3, 5, dtype=torch.int32), r"dtype = torch.int32: must be bool"),
        (torch.ones(2, 1, 1, 4, dtype=torch.int32), r"= \(2, 1, 1, 4\): must be \(2, 1, 3, 5\)"),
        (torch.ones(2, 4, 3, 5, dtype=torch.bool), "one mask for all heads"),
        (torch.ones(3, 1, 3, 5).bool(), r"= \(3, 1, 3, 5\): must be \(2, 1, 3, 5\)"),
        (torch.ones(2, 1, 3, 9).bool(), r"= \(2, 1, 3, 9\): must be \(2, 1, 3, 5\)"),
        (torch.rand(2, 1, 3, 5), "biases are not served"),
        (
            torch.eye(5, dtype=torch.bool)[None, None, :3],
            "must be causal, but for padding",
        ),
    ],
)
def test_other_masks_are_refused(mask, text):
    with pytest.raises(ValueError, match=f"^attention_mask.*{text}"):
        read_ranges(mask, 2, 3, 5, True)


def test_windows_are_refused_by_name():
    window = sliding_window_causal_mask_function(4)
    with pytest.raises(
        ValueError, match=r"^attention_mask: must be causal.*\(sliding_window = 4\)"
    ):
        key_ranges_mask(1, 6, 6, mask_function=window, local_size=4)
