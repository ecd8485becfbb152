# SPDX-License-Identifier: Apache-2.0
"""vLLM's attention backend CPU_MLA with the library's prefill. Imports vLLM."""

from typing import Any

import torch
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

    def forward_mha(
        self,
        q: torch.Tensor,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_c_and_k_pe_cache: torch.Tensor,
        attn_metadata: Any,
        k_scale: torch.Tensor,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
    ) -> None:
        prefill = attn_metadata.prefill
        # The common way where vLLM's registry has somebody else's prefill backend; and for
        # context, should CPU_MLA come to have it: vLLM forces it off.
        if (
            not isinstance(prefill.prefill_backend, NativePrefillBackend)
            or prefill.chunked_context is not None
        ):
            super().forward_mha(
                q,
                kv_c_normed,
                k_pe,
                kv_c_and_k_pe_cache,
                attn_metadata,
                k_scale,
                output,
                output_scale,
            )
            return
        self.forward_layer(
            q, kv_c_normed, k_pe, kv_c_and_k_pe_cache, prefill, None, output, output_scale
        )
