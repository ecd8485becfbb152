# SPDX-License-Identifier: Apache-2.0
"""Weights of a running engine that change, with the plug-in as without."""

from functools import cache

import pytest
import updates
from comparison import assert_same
from conftest import TOKENS
from engine import Engine
from model import LAYERS, write_adapter, write_model


@pytest.fixture(scope="module")
def few(prompts):
    """Weights that change are no matter of a prompt's length."""
    return prompts[1:]


def assert_same_each(run):
    """Results of the plug-in against those of vLLM, step by step.

    Args:
        run: what an engine with that ``prefill`` generates, result by result.
    """
    peers = cache(lambda: run("peer"))
    ours, theirs = run("plugin"), run("vllm")
    for step, (mine, expected) in enumerate(zip(ours, theirs, strict=True)):
        assert_same(mine, expected, lambda step=step, vllm=expected: (peers()[step], vllm))
    return ours


def served(engine, prompts):
    """Whether the layers ran since it was asked last, no matter in how many steps."""
    (usage,) = engine.usage()
    return usage["new_tokens"] == LAYERS * sum(map(len, prompts)) and usage["layer_calls"] > 0


def test_weights_of_a_running_engine(model, few, tmp_path):
    other = write_model(tmp_path / "other", seed=1)

    def run(prefill):
        with Engine(model, prefill) as engine:
            results = [engine.generate(few, TOKENS)]
            engine.usage()
            for now, how in zip((other, model, other), updates.WAYS, strict=True):
                engine.update(how, now)
                results.append(engine.generate(few, TOKENS))
                assert prefill != "plugin" or served(engine, few)
        return results

    first, *after = assert_same_each(run)
    assert all(tokens != previous for (tokens, _), (previous, _) in zip(after, [first, *after]))


def test_lora(model, few, tmp_path):
    """vLLM's prefill calls the kv_b_proj that its LoRA layers wrap, not them: an adapter of
    kv_b_proj has no part in it, one of o_proj has."""
    adapter = write_adapter(tmp_path / "adapter")

    def run(prefill):
        with Engine(model, prefill, enable_lora=True, max_lora_rank=8) as engine:
            engine.usage()
            results = [engine.generate(few, TOKENS, adapter), engine.generate(few, TOKENS)]
            assert prefill != "plugin" or served(engine, few * 2)
        return results

    with_adapter, without = assert_same_each(run)
    assert with_adapter[0] != without[0]


def test_vllm_refuses_to_sleep(model):
    with (
        pytest.raises(RuntimeError, match="Sleep mode is not supported on current platform"),
        Engine(model, enable_sleep_mode=True),
    ):
        pass
