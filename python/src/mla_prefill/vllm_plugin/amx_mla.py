# SPDX-License-Identifier: Apache-2.0
"""vLLM's attention backend AMX_MLA with the library's prefill. Imports vLLM."""

from typing import Any

import torch
from vllm.v1.attention.backends.mla.amx_mla import AMXMLABackend, AMXMLAImpl

from mla_prefill.vllm_plugin.layer_prefill import LayerPrefill


class PrefillAMXMLABackend(AMXMLABackend):
    """Stands behind vLLM's AMX_MLA and keeps its name: vLLM looks backends up by it."""

    @staticmethod
    def get_impl_cls() -> type["PrefillAMXMLAImpl"]:
        return PrefillAMXMLAImpl


class PrefillAMXMLAImpl(LayerPrefill, AMXMLAImpl):
    """AMX_MLA whose prefill is the library's layer: chunked prefill and prefix caching stay."""

    attention_name = "AMX_MLA"

    def _context_lens(self, prefill: Any) -> torch.Tensor:
        # AMX_MLA's own fields: its builder makes them in every version that has it.
        return prefill.cpu_seq_lens - prefill.extend_seq_lens
