# SPDX-License-Identifier: Apache-2.0
"""A model that is spread over several workers of vLLM's, layer by layer."""

from types import SimpleNamespace

import pytest
from comparison import assert_same
from conftest import CORES, TOKENS
from engine import Engine
from model import LAYERS
from vllm.config import ParallelConfig
from vllm.v1.executor import ray_utils

#: vLLM 0.32 makes a stage's inputs when it warms up, which it does not without compilation:
#: "assert self.intermediate_tensors is not None" with enforce_eager, on any CPU.
TRACED = {"enforce_eager": False, "compilation_config": {"mode": 2, "backend": "eager"}}
#: One worker for each of two cores.
TWO_WORKERS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_SIM_MULTI_NUMA": "1"}


def run(model, prompts, prefill, **options):
    """What an engine of several workers makes of the prompts; each has counted its own."""
    with Engine(model, prefill, environment=TWO_WORKERS, **options) as engine:
        # One by one: vLLM may take several that arrive together in one step or two.
        steps = [engine.generate([prompt], TOKENS) for prompt in prompts]
        usages, facts = engine.usage(), engine.facts()
    assert len({worker["process"] for worker in facts}) == len(usages) == 2
    counted = [usage["new_tokens"] for usage in usages]
    if prefill == "plugin":
        assert all(worker["attention_class"].startswith("mla_prefill.") for worker in facts)
    return tuple(sum(parts, []) for parts in zip(*steps, strict=True)), counted


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_pipeline_parallel(model, prompts, spread):
    """Two of the three layers are one worker's."""
    prompts = prompts[1:]
    ours, counted = run(model, prompts, "plugin", pipeline_parallel_size=2, **TRACED)
    tokens = sum(map(len, prompts))
    assert sorted(counted) == [tokens, (LAYERS - 1) * tokens]
    theirs, counted = run(model, prompts, "vllm", pipeline_parallel_size=2, **TRACED)
    assert counted == [0, 0]
    assert_same(ours, theirs, spread)


def test_vllm_refuses_ray(monkeypatch):
    """Whatever the cluster is: before it looks for nodes. So does its engine, with Ray 2.60."""
    monkeypatch.setattr(ray_utils, "ray", SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(ray_utils, "assert_ray_available", lambda: None)
    with pytest.raises(ValueError, match="^current platform cpu does not support ray"):
        ray_utils.initialize_ray_cluster(ParallelConfig())
