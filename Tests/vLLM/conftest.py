# SPDX-License-Identifier: Apache-2.0
import random

import pytest
from engine import Engine
from model import VOCABULARY, write_model

#: Greedy tokens of each prompt.
TOKENS = 16


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("vllm") / "model")


@pytest.fixture(scope="session")
def prompts():
    generator = random.Random(0)
    return [[generator.randrange(2, VOCABULARY) for _ in range(n)] for n in (2048, 700, 33)]


@pytest.fixture(scope="session")
def spread(model, prompts):
    """What vLLM makes of the prompts, and what it does with torch's attention."""
    results = []
    for prefill in ("peer", "vllm"):
        with Engine(model, prefill) as engine:
            results.append(engine.generate(prompts, TOKENS))
            (facts,) = engine.facts()
            assert not facts["prefill_class"].startswith("mla_prefill.")
            assert any("Using CPU_SDPA_MLA MLA prefill backend" in line for line in engine.log)
            assert not any("mla_prefill" in line for line in engine.log)
    return tuple(results)
