# SPDX-License-Identifier: Apache-2.0
"""The counters of `usage` for Prometheus, beside vLLM's own.

A worker's are its process's: vLLM's endpoint shows those of all processes where
PROMETHEUS_MULTIPROC_DIR is set, as vLLM does by itself for several API servers.
"""

from functools import cache
from typing import Any

_TEXTS = {
    "layer_calls": "MLA prefill of one layer in one step, from latents to the output",
    "new_tokens_calls": "Runs of an MLA prefill backend over new tokens",
    "new_tokens": "New tokens in either, layer by layer",
    "context_chunk_calls": "Runs of an MLA prefill backend over chunks of cached context",
    "context_queries": "Queries of such runs",
    "context_tokens": "Tokens of cached context, layer by layer",
    "seconds": "Wall time of MLA prefill",
}


def count(name: str, amount: float) -> None:
    """Adds to a counter; nothing where there is no prometheus_client."""
    counter = _counters().get(name)
    if counter is not None:
        counter.inc(amount)


@cache
def _counters() -> dict[str, Any]:
    try:
        from prometheus_client import Counter
    except ImportError:
        return {}
    return {name: Counter(f"mla_prefill_{name}", text) for name, text in _TEXTS.items()}
