# SPDX-License-Identifier: Apache-2.0
"""vLLM's attention backend AMX_MLA with the library's prefill. Imports vLLM."""

from typing import Any

import torch
from vllm.v1.attention.backends.mla.amx_mla import (
    AMXMLABackend,
    AMXMLAImpl,
    AMXMLAMetadataBuilder,
)

from mla_prefill.vllm_plugin.compatibility import missing_assignments
from mla_prefill.vllm_plugin.layer_prefill import LayerPrefill, implementation

#: AMX_MLA's own: its builder adds them to what other backends know.
_PRIVATE_FIELDS = ("cpu_seq_lens", "extend_seq_lens")


class PrefillAMXMLABackend(AMXMLABackend):
    """Stands behind vLLM's AMX_MLA and keeps its name: vLLM looks backends up by it."""

    @staticmethod
    def get_impl_cls() -> type:
        missing = missing_assignments(AMXMLAMetadataBuilder.build, _PRIVATE_FIELDS)
        return implementation(PrefillAMXMLAImpl, AMXMLAImpl, *missing)


class PrefillAMXMLAImpl(LayerPrefill, AMXMLAImpl):
    """AMX_MLA whose prefill is the library's layer: chunked prefill and prefix caching stay."""

    attention_name = "AMX_MLA"

    def _context_lens(self, prefill: Any) -> torch.Tensor:
        return prefill.cpu_seq_lens - prefill.extend_seq_lens
