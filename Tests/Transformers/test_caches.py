# SPDX-License-Identifier: Apache-2.0
"""Caches of transformers, and the one that grows in place."""

import copy

import pytest
import torch
from conftest import SERVED
from test_generation import GREEDY, left_padded
from tiny import build
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicIndexedLayer, DynamicLayer

from mla_prefill.transformers import LatentCache, disable, enable
from mla_prefill.transformers.cache import IndexedLatentLayer, LatentLayer

HYBRID = ("bailing_hybrid", "kimi_linear")


@pytest.mark.parametrize("kind", [each for each in SERVED if each not in HYBRID])
def test_static_caches(kind, prompts):
    model = build(kind)
    batch = left_padded(prompts(3, 19), [19, 4, 11])
    how = dict(GREEDY, cache_implementation="static", disable_compile=True)
    expected = model.generate(**batch, **GREEDY)
    enable(model)
    assert torch.equal(model.generate(**batch, **how), expected)


def test_static_caches_have_room_behind_their_tokens(prompts):
    model, ids = build("deepseek_v3"), prompts(1, 12)
    expected = model(ids).logits
    enable(model)
    cache = StaticCache(config=model.config, max_cache_len=40)
    steps = [model(part, cache=cache).logits for part in ids.split([7, 4, 1], 1)]
    assert (torch.cat(steps, 1) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", [each for each in SERVED if each not in HYBRID])
def test_assisted_decoding(kind, own, prompts):
    model, assistant = build(kind), build("youtu", num_hidden_layers=1)
    ids = prompts(1, 23)
    how = dict(GREEDY, assistant_model=assistant)
    expected = model.generate(ids, **GREEDY)
    enable(model)
    enable(assistant)
    cache = dict(cache=LatentCache(model.config)) if own else {}
    assert torch.equal(model.generate(ids, **how, **cache), expected)
    assert torch.equal(model.generate(ids, **GREEDY, prompt_lookup_num_tokens=3), expected)


def test_a_cache_goes_on_when_a_model_is_switched(prompts):
    model, ids = build("deepseek_v3"), prompts(2, 20)
    expected = model(ids).logits
    for made in (DynamicCache, LatentCache):
        cache, steps = made(config=model.config), []
        for step, part in enumerate(ids.split(4, 1)):
            (enable if step % 2 else disable)(model)
            steps.append(model(part, cache=cache).logits)
        assert (torch.cat(steps, 1) - expected).abs().max() < 1e-4


def test_copies_of_a_cache_go_their_own_ways(prompts):
    """A prompt that several continuations begin with."""
    model, prompt = build("deepseek_v3"), prompts(1, 9)
    enable(model)
    begun = LatentCache(model.config)
    model(prompt, cache=begun)
    for rest in (prompts(1, 4), prompts(1, 5)):
        whole = torch.cat((prompt, rest), 1)
        expected = model(whole).logits[:, 9:]
        cache = copy.deepcopy(begun)
        assert (model(rest, cache=cache).logits - expected).abs().max() < 1e-4
        assert begun.get_seq_length() == 9


def held(layer):
    parts = [layer.keys[:, 0], layer.values[:, 0]]
    if hasattr(layer, "indexer_keys"):
        parts.append(layer.indexer_keys)
    return torch.cat(parts, -1)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(LatentLayer, DynamicLayer), (IndexedLatentLayer, DynamicIndexedLayer)]
)
def test_latents_are_those_of_a_dynamic_cache(ours, theirs):
    """Through whatever is done to caches, from one token to buffers outgrown."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = ours(), theirs()

    def put(batch, tokens):
        if hasattr(ours, "indexer_keys"):
            new = torch.randn(batch, tokens, 6, generator=generator)
            assert ours.update_indexer(new) is ours.indexer_keys
            theirs.update_indexer(new)
        new = [torch.randn(batch, 1, tokens, width, generator=generator) for width in (8, 3)]
        given = ours.update(*new)
        theirs.update(*new)
        assert given[0] is ours.keys and given[1] is ours.values
        assert torch.equal(held(ours), held(theirs))
        assert ours.get_seq_length() == theirs.get_seq_length()

    for batch, tokens in ((2, 1), (2, 254), (2, 1), (2, 1), (2, 300)):
        put(batch, tokens)
    for name, argument in (
        ("crop", -7),
        ("crop", -1),
        ("batch_repeat_interleave", 3),
        ("reorder_cache", torch.tensor([5, 5, 0, 1, 2, 3])),
        ("batch_select_indices", torch.tensor([0, 4])),
    ):
        for layer in (ours, theirs):
            getattr(layer, name)(argument)
        assert torch.equal(held(ours), held(theirs))
        put(ours.keys.shape[0], 2)
    for layer in (ours, theirs):
        for name in {"keys", "values", "indexer_keys"} & vars(layer).keys():
            setattr(layer, name, getattr(layer, name)[:1])
    put(1, 1)
    for layer in (ours, theirs):
        layer.reset()
    assert ours.get_seq_length() == 0
    put(3, 5)


def test_tokens_do_not_move_while_there_is_room():
    layer = LatentLayer()
    layer.update(torch.randn(1, 1, 5, 8), torch.randn(1, 1, 5, 3))
    place = layer.keys.data_ptr()
    for _ in range(200):
        layer.update(torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 3))
    assert layer.keys.data_ptr() == place
    layer.crop(-3)
    layer.update(torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 3))
    assert layer.keys.data_ptr() == place and layer.keys.shape[2] == 203
    indexed = IndexedLatentLayer()
    places = {indexed.update_indexer(torch.randn(2, 1, 6)).data_ptr() for _ in range(200)}
    assert len(places) == 1 and indexed.indexer_keys.shape == (2, 200, 6)


def test_caches_of_others_are_refused(prompts):
    model, other = build("deepseek_v3"), build("deepseek_v3", kv_lora_rank=32)
    ids = prompts(2, 6)
    enable(model)
    for made in (LatentCache, DynamicCache):
        cache = made(config=other.config)
        other(ids, cache=cache)
        with pytest.raises((ValueError, RuntimeError)) as refusal:
            model(ids, cache=cache)
        assert made is DynamicCache or "filled by another model or batch" in str(refusal.value)
    cache = LatentCache(model.config)
    model(ids, cache=cache)
    with pytest.raises(ValueError, match=r"^key_states = \(3, .*filled by another model or batch"):
        model(prompts(3, 1), cache=cache)


def test_offloading_is_refused():
    with pytest.raises(ValueError, match="^offloading = True: must be False"):
        LatentCache(build("youtu").config, offloading=True)
