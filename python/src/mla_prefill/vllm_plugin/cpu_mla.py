# SPDX-License-Identifier: Apache-2.0
"""vLLM's attention backend CPU_MLA with the library's prefill. Imports vLLM."""

from typing import Any

from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend, CPUMLAImpl

from mla_prefill._native import NativePrefillBackend
from mla_prefill.vllm_plugin.layer_prefill import LayerPrefill


class PrefillCPUMLABackend(CPUMLABackend):
    """Stands behind vLLM's CPU_MLA and keeps its name: vLLM looks backends up by it."""

    @staticmethod
    def get_impl_cls() -> type["PrefillCPUMLAImpl"]:
        return PrefillCPUMLAImpl


class PrefillCPUMLAImpl(LayerPrefill, CPUMLAImpl):
    """CPU_MLA whose prefill is the library's layer."""

    attention_name = "CPU_MLA"

    def _serves(self, prefill: Any) -> bool:
        # The common way where vLLM's registry has somebody else's prefill backend; and for
        # context, should CPU_MLA come to have it: vLLM forces it off.
        return (
            isinstance(prefill.prefill_backend, NativePrefillBackend)
            and prefill.chunked_context is None
        )
