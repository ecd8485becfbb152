# SPDX-License-Identifier: Apache-2.0
"""MLA prefill for any engine: vLLM's prefill backends with native CPU kernels.

The names and contracts are those of ``vllm.v1.attention.backends.mla.prefill``
(0.33). What is registered, chosen and refused is decided by ``libmlaprefill``,
whose one registry per process all languages share; this package is its face in
Python. It imports neither torch nor numpy.
"""

from mla_prefill._core import version as _version
from mla_prefill._untraced import tell_torch as _tell_torch
from mla_prefill.base import MLAPrefillBackend
from mla_prefill.cache import concat_and_cache_mla, gather_and_maybe_dequant_cache
from mla_prefill.configuration import (
    MLADimensions,
    MLAPrefillConfig,
    MLAPrefillSelectorConfig,
)
from mla_prefill.host import (
    cpu_features,
    cpu_summary,
    get_num_threads,
    library_path,
    reset_stats,
    set_log_callback,
    set_num_threads,
    set_verbose,
    stats,
    trim,
    use_openmp_threads,
)
from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.metadata import (
    ChunkedContextMetadata,
    ContextChunk,
    PrefillMetadata,
    plan_context_chunks,
)
from mla_prefill.ops import attention, merge_attn_states
from mla_prefill.registry import (
    BackendInfo,
    MLAPrefillBackendEnum,
    backends,
    register_mla_prefill_backend,
    remove_mla_prefill_backend,
)
from mla_prefill.selector import get_mla_prefill_backend

__version__: str = _version()
# Where torch comes later, the first object that is made does it.
_tell_torch()

__all__ = [
    "BackendInfo",
    "ChunkedContextMetadata",
    "ContextChunk",
    "MLADimensions",
    "MLAPrefillBackend",
    "MLAPrefillBackendEnum",
    "MLAPrefillConfig",
    "MLAPrefillLayer",
    "MLAPrefillSelectorConfig",
    "PrefillMetadata",
    "attention",
    "backends",
    "concat_and_cache_mla",
    "cpu_features",
    "cpu_summary",
    "gather_and_maybe_dequant_cache",
    "get_mla_prefill_backend",
    "get_num_threads",
    "library_path",
    "merge_attn_states",
    "plan_context_chunks",
    "register_mla_prefill_backend",
    "remove_mla_prefill_backend",
    "reset_stats",
    "set_log_callback",
    "set_num_threads",
    "set_verbose",
    "stats",
    "trim",
    "use_openmp_threads",
]
