# SPDX-License-Identifier: Apache-2.0
"""What the plug-in counts, as Prometheus has it."""

import sys

from conftest import TOKENS
from engine import Engine
from mla_prefill.vllm_plugin import Usage, metrics, reset_usage
from mla_prefill.vllm_plugin.usage import counted
from model import LAYERS
from prometheus_client import REGISTRY
from vllm.v1.metrics.prometheus import get_prometheus_registry


def sample(registry, name):
    return registry.get_sample_value(f"mla_prefill_{name}_total") or 0


def test_in_one_process():
    before = {name: sample(REGISTRY, name) for name in vars(Usage())}
    with counted(layer_calls=1, new_tokens=70, context_tokens=33):
        pass
    # Prometheus's counters only grow.
    reset_usage()
    grown = {name: sample(REGISTRY, name) - value for name, value in before.items()}
    assert grown.pop("seconds") > 0
    expected = {"layer_calls": 1, "new_tokens": 70, "context_tokens": 33}
    assert {name: value for name, value in grown.items() if value} == expected


def test_without_prometheus_client(monkeypatch):
    monkeypatch.setattr(metrics, "_counters", metrics._counters.__wrapped__)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    metrics.count("new_tokens", 1)
    assert metrics._counters() == {}


def test_of_workers_where_vllm_shows_its_own(monkeypatch, model, prompts, tmp_path):
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }
    with Engine(model, environment=environment) as engine:
        engine.generate(prompts[1:], TOKENS)
        (facts,) = engine.facts()
        assert facts["process"] != engine.process
        assert any(f"{facts['process']}.db" in path.name for path in tmp_path.iterdir())
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        registry = get_prometheus_registry()
        assert sample(registry, "new_tokens") >= LAYERS * sum(map(len, prompts[1:]))
        assert sample(registry, "layer_calls") >= LAYERS
        assert sample(registry, "seconds") > 0
