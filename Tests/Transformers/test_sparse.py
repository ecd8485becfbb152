# SPDX-License-Identifier: Apache-2.0
"""Models whose indexers choose the keys (DeepSeek Sparse Attention)."""

import copy
import inspect
import io
import sys
from textwrap import dedent

import pytest
import torch
from test_generation import left_padded
from tiny import build
from transformers import DynamicCache, StaticCache
from transformers.models.deepseek_v32.modeling_deepseek_v32 import DeepseekV32Indexer

from mla_prefill.transformers import LatentCache, disable, enable, register
from mla_prefill.transformers.attention import attention_forward
from mla_prefill.transformers.index_scores import IndexScores
from mla_prefill.transformers.masks import KeyRanges, key_ranges_mask
from mla_prefill.transformers.selection import IndexSelection, select

#: GLM's layers use what the layer before has chosen, too.
SHARED = dict(num_hidden_layers=4, indexer_types=["full", "shared", "full", "shared"])
KINDS = {"deepseek_v32": {}, "glm_moe_dsa": SHARED}


def sparse(kind, dtype=torch.float32, **changes):
    return build(kind, dtype, **{**KINDS[kind], **changes})


def indexers(model):
    return [each.indexer for each in model.modules() if getattr(each, "indexer", None) is not None]


def own_choice(indexer, hidden, queries, positions, seen):
    """``[batch, queries, keys]``, True where the indexer's class chooses a key that is seen."""
    chosen = DeepseekV32Indexer.forward(indexer, hidden, queries, positions, seen, None)
    return torch.zeros_like(seen).scatter(2, chosen.long(), True) & seen


def test_is_sparse_at_all(prompts):
    """What the tests below would not see otherwise."""
    for kind in KINDS:
        ids = prompts(1, 40)
        few, all_keys = (sparse(kind, index_topk=topk)(ids).logits for topk in (8, 64))
        assert (few - all_keys)[0, 9:].abs().max() > 0.5


@pytest.mark.parametrize("step", [200, 300, 600])
@pytest.mark.parametrize("kind", KINDS)
def test_long_prompts_in_steps(kind, step, prompts):
    """24 tokens behind 1200, in steps, are those of the model's own attention."""
    model = sparse(kind, index_topk=64, max_position_embeddings=2048)
    ids = prompts(1, 1200)

    def tokens(cache):
        for part in ids.split(step, 1):
            logits = model(part, cache=cache).logits
        made = [logits[:, -1:].argmax(2)]
        while len(made) < 24:
            made.append(model(made[-1], cache=cache).logits.argmax(2))
        return torch.cat(made, 1)

    expected = tokens(DynamicCache(config=model.config))
    enable(model)
    for made in (DynamicCache, LatentCache):
        assert torch.equal(tokens(made(config=model.config)), expected)
    whole = model.generate(ids, max_new_tokens=24, do_sample=False, prefill_chunk_size=step)
    assert torch.equal(whole[:, 1200:], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", ["none", "left", "right", "between"])
def test_chosen_keys_are_the_indexers_own(side, dtype, prompts):
    model = sparse("deepseek_v32", dtype)
    attention = model.model.layers[0].self_attn
    lengths = dict(none=[37, 37, 37], left=[37, 5, 20], right=[37, 5, 20], between=[37, 30, 20])
    mask = torch.zeros(3, 37, dtype=torch.bool)
    for row, length in zip(mask, lengths[side], strict=True):
        row[:length] = True
        if side == "left":
            row.copy_(row.flip(0))
        if side == "between":
            row.copy_(row[torch.randperm(37)])
    hidden, queries = torch.randn(3, 37, 96).to(dtype), torch.randn(3, 37, 48).to(dtype)
    positions = model.model.rotary_emb(hidden, torch.arange(37)[None])
    seen = mask[:, None] & torch.ones(37, 37).tril().bool()
    expected = own_choice(attention.indexer, hidden, queries, positions, seen)
    enable(model)
    ranges = key_ranges_mask(
        3, 37, 37, attention_mask=mask, allow_is_causal_skip=False, config=model.config
    )
    chosen = IndexSelection(attention).selected(hidden, queries, positions, ranges[:, 0], None)
    assert chosen.dtype == torch.int32 and chosen.shape == (3, 37, 8)
    found = torch.zeros(3, 37, 38, dtype=torch.bool).scatter(2, chosen.long() % 38, True)
    assert torch.equal(found[..., :37][mask], expected[mask])
    # Ascending, each once, then -1; nothing where a query is padding.
    for row in chosen.flatten(0, 1).tolist():
        keys = [key for key in row if key >= 0]
        assert row == sorted(set(keys)) + [-1] * (8 - len(keys))
    assert bool((chosen[~mask] == -1).all())


def test_queries_wider_than_keys():
    """Of equal ones in bf16 the key that fp32 tells apart is chosen."""
    queries, weights = torch.ones(1, 2, 1, 2), torch.ones(1, 2, 1)
    queries[0, :, 0, 1] += 2**-12
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.bfloat16)
    steps = IndexScores(keys, 2, None, lambda q, w, k, topk: select(q, w, k, topk, ranges))
    ranges = KeyRanges([0], [2], 0, True)
    steps = torch.matmul(queries, steps.transpose(-1, -2).float().unsqueeze(1))
    steps = torch.matmul(weights.unsqueeze(2), torch.relu(steps)).squeeze(-2) + None
    assert steps.topk(1, dim=-1).indices.tolist() == [[[0], [1]]]


def test_padding_between_tokens(prompts):
    model = sparse("deepseek_v32")
    ids, mask = prompts(2, 40), torch.ones(2, 40, dtype=torch.long)
    mask[0, 11:17], mask[1, :3], mask[1, 20:33] = 0, 0, 0
    expected = model(ids, attention_mask=mask).logits
    enable(model)
    found = model(ids, attention_mask=mask).logits
    assert (found - expected)[mask.bool()].abs().max() < 1e-4


def test_of_equal_scores_the_earlier_key():
    model = sparse("deepseek_v32")
    enable(model)
    attention = model.model.layers[0].self_attn
    attention.indexer.weights_proj.weight.zero_()
    hidden, queries = torch.randn(2, 20, 96), torch.randn(2, 20, 48)
    positions = torch.randn(2, 1, 20, 16)
    mask = key_ranges_mask(2, 20, 20, allow_is_causal_skip=False, config=model.config)
    chosen = IndexSelection(attention).selected(hidden, queries, positions, mask[:, 0], None)
    for row, keys in enumerate(chosen[1].tolist()):
        assert keys == [key if key <= row else -1 for key in range(8)]


def test_shared_layers_attend_to_what_was_chosen_before(prompts):
    """Of all layers the first one's indexer alone has a say."""
    model = build("glm_moe_dsa", indexer_types=["full", "shared", "shared"])
    ids = prompts(2, 40)
    expected = model(ids).logits
    enable(model)
    assert (model(ids).logits - expected).abs().max() < 1e-4
    handed = []
    for layer in model.model.layers:
        attend = layer.self_attn.expand_kv.attention
        layer.self_attn.expand_kv.attention = lambda *given, own=attend: (
            handed.append(given[-1]) or own(*given)
        )
    model(ids)
    assert len(handed) == 3 and all(each is handed[0] for each in handed)
    assert handed[0].shape == (2, 40, 8)


@pytest.mark.parametrize("kind", ["mistral_large4"])
def test_text_models(kind, prompts):
    model = build(kind, num_hidden_layers=4)
    batch = left_padded(prompts(2, 30), [30, 13])
    expected = model(**batch, use_cache=False).last_hidden_state
    enable(model)
    found = model(**batch, use_cache=False).last_hidden_state
    for row, length in enumerate([30, 13]):
        assert (found - expected)[row, -length:].abs().max() < 1e-4


def test_disable_and_other_implementations(prompts):
    model, ids = sparse("deepseek_v32"), prompts(2, 30)
    expected = model(ids).logits
    enable(model)
    ours = model(ids).logits
    enable(model)
    assert all(isinstance(vars(each)["forward"], IndexSelection) for each in indexers(model))
    model.set_attn_implementation("sdpa")
    assert torch.equal(model(ids).logits, expected)
    model.set_attn_implementation("mla_prefill")
    assert torch.equal(model(ids).logits, ours)
    disable(model)
    assert not any("forward" in vars(each) for each in indexers(model))
    assert torch.equal(model(ids).logits, expected)


def test_copies_and_files(prompts):
    model, ids = sparse("glm_moe_dsa"), prompts(2, 30)
    enable(model)
    expected = model(ids).logits
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert torch.equal(other(ids).logits, expected)
        for indexer in indexers(other):
            assert indexer.forward.module.indexer is indexer
            indexer.weights_proj.weight.neg_()
        assert torch.equal(model(ids).logits, expected)
        assert not torch.equal(other(ids).logits, expected)


def test_gradients_and_dropout(prompts):
    model, ids = sparse("deepseek_v32", attention_dropout=0.5), prompts(1, 12)
    enable(model)
    with torch.enable_grad(), pytest.raises(ValueError, match="^query: must not require gradients"):
        model(ids)
    model.train()
    with pytest.raises(ValueError, match=r"^dropout = 0.5: must be 0"):
        model(ids)
    disable(model)
    with torch.enable_grad():
        model(ids).logits.sum().backward()


def test_masks_of_switched_models():
    """These alone are ranges of keys where models read them, and so are those of copies."""

    def shape(model):
        mask = key_ranges_mask(2, 7, 9, q_offset=2, allow_is_causal_skip=False, config=model.config)
        return tuple(mask.shape)

    model, other = sparse("deepseek_v32"), sparse("deepseek_v32")
    assert shape(model) == (2, 1, 7, 9)
    enable(model)
    assert shape(model) == (2, 1, 1, 4)
    assert shape(other) == (2, 1, 7, 9)
    other = copy.deepcopy(model)
    disable(model)
    assert shape(model) == (2, 1, 7, 9)
    assert shape(other) == (2, 1, 1, 4)


@pytest.mark.parametrize("tokens", [1, 4, 30])
@pytest.mark.parametrize(
    "kind", ["axk2", "deepseek_v32", "dots3_note", "glm_moe_dsa", "mistral_large4"]
)
def test_models_that_are_not_switched_are_refused_by_name(kind, tokens, prompts):
    """However many keys there are, and with padding between them, too."""
    register()
    model, ids, mask = build(kind), prompts(2, tokens), torch.ones(2, tokens, dtype=torch.long)
    model.set_attn_implementation("mla_prefill")
    gaps = mask.clone()
    gaps[:, 1::3] = 0
    text = rf"^indices: must be None: {kind}\w* chooses.* call \S+\.enable\(model\)"
    for given in (None, mask, gaps):
        for cache in (None, StaticCache(config=model.config, max_cache_len=40)):
            with pytest.raises(ValueError, match=text):
                model(ids, attention_mask=given, past_key_values=cache)


def test_selections_of_other_modules():
    states = [torch.zeros(1, 2, 3, 4) for _ in range(3)]
    chosen = torch.zeros(1, 3, 1, dtype=torch.int32)
    with pytest.raises(ValueError, match="^indices: must be None: Module chooses"):
        attention_forward(torch.nn.Module(), *states, None, indices=chosen)


def otherwise(old, new):
    """The indexer's class with another text in its forward."""
    source = dedent(inspect.getsource(inspect.unwrap(DeepseekV32Indexer.forward)))
    assert source.count(old) == 1
    space = dict(vars(sys.modules[DeepseekV32Indexer.__module__]))
    exec(source.replace(old, new), space)
    return type("OtherIndexer", (DeepseekV32Indexer,), dict(forward=space["forward"]))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("F.relu(scores)", "F.silu(scores)", "scored by transpose, unsqueeze, matmul, silu"),
        ("scores = F.relu(scores)", "pass", "scored by transpose, unsqueeze, matmul, matmul"),
        ("* self.softmax_scale", "* -self.softmax_scale", "multiplied by -.*: must be a number"),
        ("k.transpose(-1, -2)", "k.transpose(0, 1)", "must be transpose"),
        ("weights.unsqueeze(-2)", "weights.unsqueeze(-1)", "must be"),
        ("index_scores + attention_mask", "index_scores", "keys are scored by"),
        ("index_scores + attention_mask", "index_scores + 1.0", "masked by something else"),
        ("topk(topk, dim=-1)", "topk(topk, dim=1)", "topk of dimension 1"),
        ("scores = F.relu(scores)", "scores = F.relu(scores / 2)", "unsupported operand"),
        ("k = cache.update_indexer(k, self.layer_idx)", "cache.others(k)", "no attribute 'others'"),
    ],
)
def test_other_indexers_are_refused(old, new, reason):
    model = sparse("deepseek_v32")
    indexers(model)[2].__class__ = otherwise(old, new)
    with pytest.raises(ValueError, match=f"^model.model.layers.2.self_attn = .*{reason}"):
        enable(model)
    assert model.config._attn_implementation == "sdpa"
    assert not any("forward" in vars(each) for each in indexers(model))


def test_other_forwards_of_indexers_are_refused():
    model = sparse("deepseek_v32")
    indexer = indexers(model)[1]
    indexer.forward = indexer.forward
    with pytest.raises(ValueError, match="its indexer's forward has been replaced"):
        enable(model)
