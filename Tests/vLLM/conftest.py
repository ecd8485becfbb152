# SPDX-License-Identifier: Apache-2.0
import os
import random
from functools import cache

import pytest
from engine import Engine
from model import VOCABULARY, write_model

#: Greedy tokens of each prompt.
TOKENS = 16
CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("vllm") / "model")


@pytest.fixture(scope="session")
def prompts():
    generator = random.Random(0)
    return [[generator.randrange(2, VOCABULARY) for _ in range(n)] for n in (2048, 700, 33)]


@pytest.fixture(scope="session")
def by_vllm(model, prompts):
    """What an engine without the plug-in makes of the prompts."""
    return _without_plugin(model, prompts, "vllm")


@pytest.fixture(scope="session")
def spread(model, prompts, by_vllm):
    """A function: the same with torch's attention in vLLM, and the above."""
    return cache(lambda: (_without_plugin(model, prompts, "peer"), by_vllm))


def _without_plugin(model, prompts, prefill):
    with Engine(model, prefill) as engine:
        generated = engine.generate(prompts, TOKENS)
        (facts,) = engine.facts()
        assert facts["attention_class"].endswith(".CPUMLAImpl")
        assert not facts["attention_class"].startswith("mla_prefill.")
        assert not facts["prefill_class"].startswith("mla_prefill.")
        assert any("Using CPU_SDPA_MLA MLA prefill backend" in line for line in engine.log)
        assert not any("served by mla_prefill" in line for line in engine.log)
    return generated
