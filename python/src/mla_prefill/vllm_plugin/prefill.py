# SPDX-License-Identifier: Apache-2.0
"""The library's CPU backends as vLLM's registry resolves them. Imports vLLM."""

from typing import Any

from vllm.v1.attention.backends.mla.prefill.base import MLAPrefillBackend

from mla_prefill._native import NativePrefillBackend
from mla_prefill._tensors import rows_of
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend
from mla_prefill.vllm_plugin.threads import announce, use_engine_threads
from mla_prefill.vllm_plugin.usage import counted
from mla_prefill.zen_cpu_sdpa import ZenCPUSDPAMLAPrefillBackend


class _CountedPrefillBackend(NativePrefillBackend):
    """Counts what it runs, on the threads that the engine has by then."""

    def prepare_metadata(self, prefill_metadata: Any) -> None:
        use_engine_threads()
        super().prepare_metadata(prefill_metadata)

    def run_prefill_new_tokens(self, q: Any, *args: Any, **keywords: Any) -> Any:
        announce(f"backend {self.member_name}")
        with counted(new_tokens_calls=1, new_tokens=rows_of(q)):
            return super().run_prefill_new_tokens(q, *args, **keywords)

    def run_prefill_context_chunk(
        self, chunk: Any = None, q: Any = None, k: Any = None, *args: Any, **keywords: Any
    ) -> tuple[Any, Any]:
        queries, keys = rows_of(q), rows_of(k, "k")
        with counted(context_chunk_calls=1, context_queries=queries, context_tokens=keys):
            return super().run_prefill_context_chunk(chunk, q, k, *args, **keywords)


class VllmCPUPrefillBackend(_CountedPrefillBackend, CPUSDPAMLAPrefillBackend, MLAPrefillBackend):
    """Stands behind vLLM's CPU."""


class VllmZenCPUPrefillBackend(
    _CountedPrefillBackend, ZenCPUSDPAMLAPrefillBackend, MLAPrefillBackend
):
    """Stands behind vLLM's ZEN_CPU, which vLLM asks first."""
