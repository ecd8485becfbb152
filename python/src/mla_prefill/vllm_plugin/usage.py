# SPDX-License-Identifier: Apache-2.0
"""Counts what vLLM has run through the library in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from threading import Lock
from time import perf_counter

from mla_prefill.vllm_plugin import metrics


@dataclass
class Usage:
    """Calls, rows and time since the process began or ``reset_usage``."""

    #: Whole layers, from latents to the output; one call per layer and step.
    layer_calls: int = 0
    #: Runs of a prefill backend over a batch's new tokens, likewise.
    new_tokens_calls: int = 0
    #: New tokens in either.
    new_tokens: int = 0
    #: Runs of a prefill backend over chunks of cached context, and their queries.
    context_chunk_calls: int = 0
    context_queries: int = 0
    #: Tokens of cached context in these and in layers.
    context_tokens: int = 0
    #: Wall time of all runs.
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.layer_calls} layers, {self.new_tokens_calls} backend runs and "
            f"{self.context_chunk_calls} over context: {self.new_tokens} new tokens, "
            f"{self.context_tokens} of context, {self.seconds:.3f} s"
        )


_usage = Usage()
_lock = Lock()


def usage() -> Usage:
    """A copy of this process's counters: with workers, ask each of them."""
    with _lock:
        return replace(_usage)


def reset_usage() -> None:
    """Starts to count from zero."""
    with _lock:
        for field in fields(Usage):
            setattr(_usage, field.name, field.default)


@contextmanager
def counted(**amounts: int) -> Iterator[None]:
    """Counts a run that comes to its end."""
    start = perf_counter()
    yield
    counts = {**amounts, "seconds": perf_counter() - start}
    with _lock:
        for name, amount in counts.items():
            setattr(_usage, name, getattr(_usage, name) + amount)
            metrics.count(name, amount)
