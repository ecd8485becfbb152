# SPDX-License-Identifier: Apache-2.0
"""What the plug-in overrides in vLLM's registries, and what it leaves alone."""

import sys
from importlib.metadata import entry_points

import pytest
from mla_prefill import host
from mla_prefill.vllm_plugin import register, registration
from vllm.v1.attention.backends.mla.prefill.base import MLAPrefillBackend
from vllm.v1.attention.backends.mla.prefill.registry import (
    MLAPrefillBackendEnum,
    register_mla_prefill_backend,
)
from vllm.v1.attention.backends.registry import AttentionBackendEnum

REGISTRY = "vllm.v1.attention.backends.mla.prefill.registry"
PREFILL = ("CPU", "ZEN_CPU")
OURS = {*PREFILL, "CPU_MLA"}
ATTENTION = (AttentionBackendEnum.CPU_MLA, AttentionBackendEnum.AMX_MLA)


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    monkeypatch.delenv("MLA_PREFILL_VLLM", raising=False)
    clear()
    yield
    clear()


def clear():
    for member in (*MLAPrefillBackendEnum, *ATTENTION):
        member.clear_override()


def overridden():
    members = (*MLAPrefillBackendEnum, AttentionBackendEnum.CPU_MLA)
    return {member.name for member in members if member.is_overridden()}


def with_kernels(monkeypatch, isa):
    features = host.cpu_features() | {"bf16_isa": isa}
    monkeypatch.setattr(host, "cpu_features", lambda: features)


def test_entry_point():
    (entry,) = entry_points(group="vllm.general_plugins", name="mla_prefill")
    assert entry.load() is register


def test_overrides_the_cpu_backends_any_number_of_times():
    for _ in range(3):
        register()
    assert overridden() == OURS
    for name in PREFILL:
        backend = MLAPrefillBackendEnum[name].get_class()
        assert issubclass(backend, MLAPrefillBackend)
        assert backend.member_name == name
    assert MLAPrefillBackendEnum.CPU.get_class().is_available()
    # vLLM asks this one first: it serves where the library says so.
    zen = "avx512_bf16" in host.cpu_features()["features"]
    zen = zen and host.cpu_features()["vendor"] == "AuthenticAMD"
    assert MLAPrefillBackendEnum.ZEN_CPU.get_class().is_available() == zen


@pytest.mark.parametrize("value", ["0", "off", "False", " 0 "])
def test_switched_off(monkeypatch, value):
    monkeypatch.setenv("MLA_PREFILL_VLLM", value)
    register()
    assert overridden() == set()


@pytest.mark.parametrize("value", ["1", "", "on"])
def test_not_switched_off(monkeypatch, value):
    monkeypatch.setenv("MLA_PREFILL_VLLM", value)
    register()
    assert overridden() == OURS


def test_another_plug_in_keeps_what_it_has_overridden():
    register_mla_prefill_backend(MLAPrefillBackendEnum.CPU, "theirs.Backend")
    register()
    assert MLAPrefillBackendEnum.CPU.get_path() == "theirs.Backend"
    assert overridden() == OURS


@pytest.mark.parametrize("isa", ["avx512_bf16", "amx"])
def test_attention_backends(monkeypatch, isa):
    with_kernels(monkeypatch, isa)
    register()
    for member in ATTENTION:
        ours = member.name == "CPU_MLA" or isa == "amx"
        assert member.is_overridden() == ours
        if ours:
            backend = member.get_class()
            assert backend.get_name() == member.name
            path = f"mla_prefill.vllm_plugin.{member.name.lower()}"
            assert backend.get_impl_cls().__module__ == path


def test_vllm_without_these_registries(monkeypatch):
    with_kernels(monkeypatch, "amx")
    monkeypatch.setitem(sys.modules, REGISTRY, None)
    monkeypatch.setitem(sys.modules, "vllm.v1.attention.backends.registry", None)
    register()
    assert overridden() == set()


def test_backends_that_this_vllm_lacks_are_passed_over():
    registration.register_attention_backends({"NO_SUCH": "no.such.Class"})
