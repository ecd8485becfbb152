# SPDX-License-Identifier: Apache-2.0
"""The same tokens with the plug-in as without, under CPU_MLA and AMX_MLA."""

from functools import cache

import amx_operators
import pytest
from comparison import assert_same
from conftest import TOKENS
from engine import Engine
from model import LAYERS, VOCABULARY


def test_cpu_mla(model, prompts, by_vllm, spread):
    with Engine(model) as engine:
        engine.usage()
        generated = engine.generate(prompts, TOKENS)
        (usage,) = engine.usage()
        (facts,) = engine.facts()
        served = [line for line in engine.log if "MLA prefill is served by mla_prefill" in line]
    print(f"\n{served}\n{usage}")
    assert facts["attention_class"] == "mla_prefill.vllm_plugin.cpu_mla.PrefillCPUMLAImpl"
    assert facts["prefill_class"].startswith("mla_prefill.vllm_plugin.")
    assert facts["algorithm"] == "up_projected"
    assert len(served) == 1
    assert usage["new_tokens"] == LAYERS * sum(map(len, prompts))
    assert usage["layer_calls"] >= LAYERS
    assert usage["new_tokens_calls"] == usage["context_tokens"] == 0
    assert_same(generated, by_vllm, spread)


def test_prefill_backend(model, prompts, by_vllm, spread):
    """vLLM's common way with the library's backends behind CPU and ZEN_CPU."""
    with Engine(model, "backend") as engine:
        engine.usage()
        generated = engine.generate(prompts, TOKENS)
        (usage,) = engine.usage()
        (facts,) = engine.facts()
    print(f"\n{usage}")
    assert not facts["attention_class"].startswith("mla_prefill.")
    assert facts["prefill_class"].startswith("mla_prefill.vllm_plugin.")
    assert usage["new_tokens"] == LAYERS * sum(map(len, prompts))
    assert usage["layer_calls"] == usage["context_chunk_calls"] == 0
    assert_same(generated, by_vllm, spread)


def test_amx_mla_with_chunked_prefill_and_a_prefix_hit(model, prompts):
    """Chunks of 512 tokens; then 1300 tokens of the first prompt again, of which 40
    blocks of 32 are in the cache."""
    if missing := amx_operators.missing():
        pytest.skip(f"vLLM's build for this CPU has no {missing}")
    cached = 1280
    repeated = [prompts[0][:1300] + [2 + token % (VOCABULARY - 2) for token in range(400)]]

    def run(prefill):
        options = {"max_num_batched_tokens": 512, "block_size": 32, "enable_prefix_caching": True}
        with Engine(model, prefill, as_amx_host=True, **options) as engine:
            engine.usage()
            results, usages = [], []
            for batch in (prompts, repeated):
                results.append(engine.generate(batch, TOKENS))
                usages += engine.usage()
            return results, usages, engine.facts()

    ours, (chunked, hit), (facts,) = run("plugin")
    print(f"\nchunked prefill: {chunked}\nprefix hit: {hit}")
    assert facts["attention_class"] == "mla_prefill.vllm_plugin.amx_mla.PrefillAMXMLAImpl"
    assert facts["algorithm"] == "auto"
    assert chunked["new_tokens"] == LAYERS * sum(map(len, prompts))
    # Each of the steps after a prompt's first has what went before for context.
    assert chunked["layer_calls"] >= LAYERS * 6
    assert chunked["context_tokens"] >= LAYERS * (512 + 1024 + 1536)
    assert hit["new_tokens"] == LAYERS * (len(repeated[0]) - cached)
    assert hit["context_tokens"] == LAYERS * cached
    theirs, _, _ = run("vllm")
    peers = cache(lambda: run("peer")[0])
    assert_same(ours[0], theirs[0], lambda: (peers()[0], theirs[0]))
    assert_same(ours[1], theirs[1], lambda: (peers()[1], theirs[1]))
