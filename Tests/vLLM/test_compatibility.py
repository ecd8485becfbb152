# SPDX-License-Identifier: Apache-2.0
"""An engine that is not as the plug-in knows it keeps its own prefill, and a line says why."""

import logging
from dataclasses import make_dataclass

import pytest
from mla_prefill.vllm_plugin import amx_mla, cpu_mla, layer_prefill, register, registration
from mla_prefill.vllm_plugin.compatibility import (
    call_differences,
    class_differences,
    missing_assignments,
    missing_fields,
    missing_parameters,
)
from mla_prefill.vllm_plugin.threads import announce_refusal
from vllm.model_executor.layers.attention.mla_attention import MLACommonImpl
from vllm.v1.attention.backends.mla.amx_mla import AMXMLAImpl, AMXMLAMetadataBuilder
from vllm.v1.attention.backends.mla.cpu_mla import CPUMLAImpl
from vllm.v1.attention.backends.mla.prefill.base import MLAPrefillBackend
from vllm.v1.attention.backends.mla.prefill.registry import MLAPrefillBackendEnum


@pytest.fixture
def warnings(monkeypatch, caplog):
    """The plug-in's, so far."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    announce_refusal.cache_clear()
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name == "vllm.mla_prefill" and record.levelno >= logging.WARNING
    ]


@pytest.fixture(autouse=True)
def registry():
    clear = [MLAPrefillBackendEnum.CPU.clear_override, MLAPrefillBackendEnum.ZEN_CPU.clear_override]
    for each in clear:
        each()
    yield
    for each in clear:
        each()


def ours(self, q, k, out=None):
    pass


def more(self, q, k, out, sink):
    pass


def less(self, q):
    pass


def reordered(self, k, q):
    pass


def newer(self, q, k):
    pass


@pytest.mark.parametrize(
    "theirs, found",
    [
        (newer, []),
        (ours, []),
        (more, ["more takes sink"]),
        (less, ["less does not take k"]),
        (reordered, ["reordered takes its arguments in another order"]),
    ],
)
def test_calls(theirs, found):
    assert call_differences(theirs, ours) == found


def test_fields_parameters_and_assignments():
    kind = make_dataclass("Kind", ["a", "b"])
    assert missing_fields(kind, ("a", "b")) == []
    assert missing_fields(kind, ("b", "c")) == ["Kind has no c"]
    assert missing_parameters(more, ("q", "sink")) == []
    assert missing_parameters(less, ("q", "sink")) == ["less takes no sink"]

    def build(self):
        self.prefill.one = 1

    assert missing_assignments(build, ["one"]) == []
    (text,) = missing_assignments(build, ["one", "two"])
    assert text.endswith("build sets no two")


def test_this_vllm_is_known(warnings):
    assert cpu_mla.PrefillCPUMLABackend.get_impl_cls() is cpu_mla.PrefillCPUMLAImpl
    assert amx_mla.PrefillAMXMLABackend.get_impl_cls() is amx_mla.PrefillAMXMLAImpl
    assert warnings() == []


def test_another_forward_mha(monkeypatch, warnings):
    def forward_mha(self, q, kv_c_normed, k_pe, kv_c_and_k_pe_cache, attn_metadata, k_scale,
                    output, output_scale=None, sinks=None):  # fmt: skip
        pass

    monkeypatch.setattr(MLACommonImpl, "forward_mha", forward_mha)
    for _ in range(2):
        assert cpu_mla.PrefillCPUMLABackend.get_impl_cls() is CPUMLAImpl
    (line,) = warnings()
    assert "under CPU_MLA goes vLLM's own way: this vLLM is another" in line
    assert line.endswith("forward_mha takes sinks")


def test_a_prefill_of_its_own(monkeypatch, warnings):
    monkeypatch.setattr(
        CPUMLAImpl, "forward_mha", lambda self, *anything: None, raising=False
    )
    assert cpu_mla.PrefillCPUMLABackend.get_impl_cls() is CPUMLAImpl
    (line,) = warnings()
    assert line.endswith("CPUMLAImpl has a forward_mha of its own")


def test_a_constructor_without_what_the_layer_is_made_of(monkeypatch, warnings):
    monkeypatch.setattr(layer_prefill.MLACommonBaseImpl, "__init__", lambda self, num_heads: None)
    assert cpu_mla.PrefillCPUMLABackend.get_impl_cls() is CPUMLAImpl
    (line,) = warnings()
    assert "takes no kv_lora_rank" in line and "takes no kv_b_proj" in line


def test_amx_mla_without_its_private_fields(monkeypatch, warnings):
    monkeypatch.setattr(AMXMLAMetadataBuilder, "build", lambda self, *anything: None)
    assert amx_mla.PrefillAMXMLABackend.get_impl_cls() is AMXMLAImpl
    (line,) = warnings()
    assert "under AMX_MLA" in line and "sets no cpu_seq_lens" in line


def test_another_prefill_backend(monkeypatch, warnings):
    class Newer(MLAPrefillBackend):
        def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, mask):
            pass

        def run_draft(self):
            pass

        run_draft.__isabstractmethod__ = True

    assert class_differences(MLAPrefillBackend, registration.NativePrefillBackend) == []
    monkeypatch.setattr("vllm.v1.attention.backends.mla.prefill.base.MLAPrefillBackend", Newer)
    registration.register_prefill_backends()
    assert not MLAPrefillBackendEnum.CPU.is_overridden()
    (line,) = warnings()
    assert line.startswith("mla_prefill serves no prefill backend: ")
    assert "run_prefill_new_tokens takes mask" in line and "has run_draft" in line


def test_a_backend_that_vllm_has_moved(monkeypatch, warnings):
    monkeypatch.setitem(registration._BASES, "CPU_MLA", "vllm.older.CPUMLABackend")
    register()
    (line,) = warnings()
    assert line.startswith("mla_prefill does not serve CPU_MLA: in this vLLM it is vllm.v1.")
