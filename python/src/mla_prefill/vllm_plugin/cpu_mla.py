# SPDX-License-Identifier: Apache-2.0
"""vLLM's attention backend CPU_MLA with the library's prefill. Imports vLLM."""

from typing import Any

from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend, CPUMLAImpl

from mla_prefill._native import NativePrefillBackend
from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.vllm_plugin.layer_prefill import LayerPrefill


class PrefillCPUMLABackend(CPUMLABackend):
    """Stands behind vLLM's CPU_MLA and keeps its name: vLLM looks backends up by it."""

    @staticmethod
    def get_impl_cls() -> type["PrefillCPUMLAImpl"]:
        return PrefillCPUMLAImpl


class PrefillCPUMLAImpl(LayerPrefill, CPUMLAImpl):
    """CPU_MLA whose prefill is the library's layer."""

    attention_name = "CPU_MLA"

    def _layer(self, prefill: Any) -> MLAPrefillLayer | str:
        backend = prefill.prefill_backend
        if not isinstance(backend, NativePrefillBackend):
            return f"the prefill backend is {type(backend).__module__}.{type(backend).__name__}"
        # Should CPU_MLA come to have it: vLLM forces it off.
        if prefill.chunked_context is not None:
            return "cached context"
        return super()._layer(prefill)
