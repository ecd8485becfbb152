# SPDX-License-Identifier: Apache-2.0
"""The same tokens with the plug-in as without, under CPU_MLA and AMX_MLA."""

from comparison import assert_same
from conftest import TOKENS
from engine import Engine
from model import LAYERS, VOCABULARY


def test_cpu_mla(model, prompts, spread):
    with Engine(model) as engine:
        engine.usage()
        generated = engine.generate(prompts, TOKENS)
        (usage,) = engine.usage()
        (facts,) = engine.facts()
        served = [line for line in engine.log if "MLA prefill is served by mla_prefill" in line]
    print(f"\n{served}\n{usage}")
    assert facts["attention_class"].endswith(".CPUMLAImpl")
    assert facts["prefill_class"].startswith("mla_prefill.vllm_plugin.")
    assert len(served) == 1
    assert usage["new_tokens"] == LAYERS * sum(map(len, prompts))
    assert usage["context_chunk_calls"] == 0
    _, reference = spread
    assert_same(generated, reference, spread)


def test_amx_mla_with_chunked_prefill_and_a_prefix_hit(model, prompts):
    """Chunks of 512 tokens; then 1300 tokens of the first prompt again, of which 40
    blocks of 32 are in the cache."""
    cached = 1280
    repeated = [prompts[0][:1300] + [2 + token % (VOCABULARY - 2) for token in range(400)]]
    options = {"max_num_batched_tokens": 512, "block_size": 32, "enable_prefix_caching": True}
    generated, continued = {}, {}
    for prefill in ("plugin", "vllm", "peer"):
        with Engine(model, prefill, as_amx_host=True, **options) as engine:
            engine.usage()
            generated[prefill] = engine.generate(prompts, TOKENS)
            (chunked,) = engine.usage()
            continued[prefill] = engine.generate(repeated, TOKENS)
            (hit,) = engine.usage()
            (facts,) = engine.facts()
        if prefill != "plugin":
            continue
        print(f"\nchunked prefill: {chunked}\nprefix hit: {hit}")
        assert facts["attention_class"] == "mla_prefill.vllm_plugin.amx_mla.PrefillAMXMLAImpl"
        assert chunked["new_tokens"] == LAYERS * sum(map(len, prompts))
        # Each of the steps after a prompt's first has what went before for context.
        assert chunked["context_chunk_calls"] >= LAYERS * 4
        assert hit["new_tokens"] == LAYERS * (len(repeated[0]) - cached)
        assert hit["context_tokens"] >= LAYERS * cached
    for results in (generated, continued):
        assert_same(results["plugin"], results["vllm"], (results["peer"], results["vllm"]))
