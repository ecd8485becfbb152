# SPDX-License-Identifier: Apache-2.0
"""Cached context under CPU_MLA, which vLLM gives it in two cases: the same tokens, by the layer."""

from functools import cache

import prefix_connector
import speculation
from comparison import assert_same
from conftest import TOKENS
from engine import Engine
from model import LAYERS, VOCABULARY

def test_prefixes_that_a_connector_reloads(model, prompts, tmp_path):
    kept = 1280
    # Begins as the first prompt, goes on differently.
    continued = [prompts[0][:kept] + [2 + token % (VOCABULARY - 2) for token in range(420)]]

    def run(prefill):
        transfer = prefix_connector.config(tmp_path / prefill, kept)
        with Engine(model, prefill, kv_transfer_config=transfer) as engine:
            engine.usage()
            fresh = engine.generate(prompts[:1], TOKENS)
            (_,) = engine.usage()
            reloaded = engine.generate(continued, TOKENS)
            (usage,) = engine.usage()
            (facts,) = engine.facts()
            assert facts["algorithm"] == ("auto" if prefill == "plugin" else None)
            assert any("Inject KV cache of 1280 tokens" in line for line in engine.log)
        return (fresh, reloaded), usage

    (fresh, reloaded), usage = run("plugin")
    print(f"\nreloaded prefix: {usage}")
    assert usage["layer_calls"] == LAYERS
    assert usage["new_tokens"] == LAYERS * (len(continued[0]) - kept)
    assert usage["context_tokens"] == LAYERS * kept
    assert usage["new_tokens_calls"] == usage["context_chunk_calls"] == 0
    theirs, _ = run("vllm")
    peers = cache(lambda: run("peer")[0])
    assert_same(fresh, theirs[0], lambda: (peers()[0], theirs[0]))
    assert_same(reloaded, theirs[1], lambda: (peers()[1], theirs[1]))


def test_ngram_speculation(model, prompts):
    """Steps that verify drafts are prefills of a few tokens on all that went before.

    Compared with vLLM's own under speculation, which gives other tokens than without it on
    this model, whoever attends."""

    def run(prefill):
        with Engine(model, prefill, speculative_config=speculation.NGRAM) as engine:
            engine.usage()
            # One by one: vLLM may take several that arrive together in one step or two.
            steps = [engine.generate([prompt], TOKENS) for prompt in prompts]
            (usage,) = engine.usage()
        return tuple(sum(parts, []) for parts in zip(*steps, strict=True)), usage

    generated, usage = run("plugin")
    print(f"\nspeculation: {usage}")
    verified = usage["new_tokens"] - LAYERS * sum(map(len, prompts))
    assert verified >= LAYERS * (1 + speculation.DRAFTED)
    assert usage["context_tokens"] >= LAYERS * len(prompts[0])
    assert usage["new_tokens_calls"] == usage["context_chunk_calls"] == 0
    theirs, _ = run("vllm")
    assert_same(generated, theirs, lambda: (run("peer")[0], theirs))
