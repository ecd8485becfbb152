# SPDX-License-Identifier: Apache-2.0
"""vLLM's attention backend CPU_MLA with the library's prefill. Imports vLLM."""

from typing import Any

import torch
from vllm.model_executor.layers.attention.mla_attention import MLACommonPrefillMetadata
from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend, CPUMLAImpl

from mla_prefill._native import NativePrefillBackend
from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.vllm_plugin.compatibility import missing_fields
from mla_prefill.vllm_plugin.layer_prefill import LayerPrefill, implementation


class PrefillCPUMLABackend(CPUMLABackend):
    """Stands behind vLLM's CPU_MLA and keeps its name: vLLM looks backends up by it."""

    @staticmethod
    def get_impl_cls() -> type:
        return implementation(
            PrefillCPUMLAImpl,
            CPUMLAImpl,
            *missing_fields(MLACommonPrefillMetadata, ("prefill_backend", "chunked_context")),
            *missing_fields(MLACommonPrefillMetadata.ChunkedContextMetadata, ("context_lens",)),
            *(["CPUMLAImpl has a forward_mha of its own"] if _has_own_prefill() else []),
        )


class PrefillCPUMLAImpl(LayerPrefill, CPUMLAImpl):
    """CPU_MLA whose prefill is the library's layer."""

    attention_name = "CPU_MLA"

    def _layer(self, prefill: Any) -> MLAPrefillLayer | str:
        # Where vLLM's registry has somebody else's prefill backend, that is what is wanted.
        backend = prefill.prefill_backend
        if not isinstance(backend, NativePrefillBackend):
            return f"the prefill backend is {type(backend).__module__}.{type(backend).__name__}"
        return super()._layer(prefill)

    def _context_lens(self, prefill: Any) -> torch.Tensor | None:
        # Of prefixes that a KV connector reloads, and of steps that verify drafts.
        context = prefill.chunked_context
        return None if context is None else context.context_lens


def _has_own_prefill() -> bool:
    return "forward_mha" in vars(CPUMLAImpl)
