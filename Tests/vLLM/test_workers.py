# SPDX-License-Identifier: Apache-2.0
"""Workers that vLLM spawns and pins to their cores."""

import pytest
import torch
from comparison import assert_same
from conftest import CORES, TOKENS
from engine import Engine
from mla_prefill import host
from mla_prefill.vllm_plugin.threads import use_engine_threads
from model import LAYERS


@pytest.fixture
def few(prompts):
    """How workers run depends on no prompt's length."""
    return prompts[1:]


def test_as_many_threads_as_torch_has(monkeypatch):
    told = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(host, "set_num_threads", told.append)
    monkeypatch.setattr(host, "use_openmp_threads", lambda: None)
    use_engine_threads.__wrapped__()
    assert told == [3]


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_a_pinned_worker_uses_all_its_cores(model, few):
    given = CORES[:2]
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, given)),
    }
    with Engine(model, environment=environment) as engine:
        engine.generate(few, TOKENS)
        (usage,) = engine.usage()
        (facts,) = engine.facts()
    assert usage["new_tokens"] == LAYERS * sum(map(len, few))
    # vLLM's thread alone could reach but one of them.
    assert facts["own_processors"] == given[:1]
    assert facts["library_threads"] == facts["torch_threads"] == len(given)
    # OpenMP's threads, which are the library's, too: none of its own, which could reach both.
    assert all([processor] in facts["thread_processors"] for processor in given)
    assert given not in facts["thread_processors"]
    assert not any(set(mask) - set(given) for mask in facts["thread_processors"])


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_tensor_parallel(model, few, spread):
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_SIM_MULTI_NUMA": "1"}

    def run(prefill):
        with Engine(model, prefill, environment=environment, tensor_parallel_size=2) as engine:
            # One by one: vLLM may take several that arrive together in one step or two.
            steps = [engine.generate([prompt], TOKENS) for prompt in few]
            usages, facts = engine.usage(), engine.facts()
        counted = LAYERS * sum(map(len, few)) if prefill == "plugin" else 0
        assert [usage["new_tokens"] for usage in usages] == [counted, counted]
        assert len({worker["process"] for worker in facts}) == 2
        for worker in facts:
            is_ours = worker["attention_class"].startswith("mla_prefill.")
            assert is_ours == (prefill == "plugin")
            assert not is_ours or worker["library_threads"] == worker["torch_threads"]
        return tuple(sum(parts, []) for parts in zip(*steps, strict=True))

    assert_same(run("plugin"), run("vllm"), spread)
