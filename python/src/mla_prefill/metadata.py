# SPDX-License-Identifier: Apache-2.0
"""Metadata of a batch, and how its cached context is cut into chunks.

vLLM's own metadata objects serve as well: backends read attributes, no types.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mla_prefill import _core
from mla_prefill.configuration import part


@dataclass(kw_only=True)
class ContextChunk:
    """For some consecutive requests, some of the keys cached before this step.

    ``query_start_loc`` and ``cu_seq_lens`` are ``[num_requests + 1]`` row offsets
    into the chunk's q and into its k and v, from 0, never falling.
    """

    query_start_loc: Any
    cu_seq_lens: Any
    #: Place in the batch's list of chunks; -1: not announced there.
    index: int = -1
    #: Requests and new tokens of the batch that the chunk is for.
    request_slice: slice | None = None
    token_slice: slice | None = None
    #: Whether the first request continues from the chunk before: the results of
    #: tokens [token_slice.start, continuation_token_end) must then be merged.
    is_continuation: bool = False
    continuation_token_end: int = 0
    #: First context row of each request in this chunk, and how many there are.
    starts: Any = None
    seq_lens: Any = None
    max_query_len: int = 0
    max_seq_len: int = 0

    @property
    def num_requests(self) -> int:
        return len(self.cu_seq_lens) - 1


@dataclass(kw_only=True)
class ChunkedContextMetadata:
    """The chunks of a batch that has cached context."""

    chunks: list[ContextChunk] = field(default_factory=list)


@dataclass(kw_only=True)
class PrefillMetadata:
    """A batch: ``query_start_loc [num_requests + 1]`` are its new tokens' row offsets."""

    query_start_loc: Any
    max_query_len: int = 0
    chunked_context: ChunkedContextMetadata | None = None


def plan_context_chunks(
    context_lens: Any,
    row_budget: int,
    block_size: int = 1,
    query_start_loc: Any = None,
    max_context_chunk: int = 0,
) -> list[ContextChunk]:
    """Packs contexts into chunks of bounded size as vLLM's plan_mla_context_chunks does.

    Args:
        context_lens: ``[num_requests]`` cached tokens of each request, 0 where none.
        row_budget: most context rows in a chunk; at least ``block_size``.
        block_size: a request that must be split is split at a multiple of this.
        query_start_loc: ``[num_requests + 1]`` row offsets of the new tokens; without
            it the chunks have none and cannot be run.
        max_context_chunk: most rows split off a request that does not fit whole; 0:
            ``row_budget``.

    Raises:
        TypeError, ValueError: an argument breaks a rule; the text names it.
    """
    planned = _core.plan_context_chunks(
        context_lens, row_budget, block_size, query_start_loc, max_context_chunk
    )
    return [_chunk(fields) for fields in planned]


def _chunk(fields: dict[str, Any]) -> ContextChunk:
    query_start_loc = fields["query_start_loc"]
    return ContextChunk(
        index=fields["index"],
        query_start_loc=query_start_loc,
        cu_seq_lens=fields["cu_seq_lens"],
        request_slice=slice(fields["request_begin"], fields["request_end"]),
        token_slice=slice(fields["token_begin"], fields["token_end"]),
        is_continuation=fields["is_continuation"],
        continuation_token_end=fields["continuation_token_end"],
        starts=fields["starts"],
        seq_lens=fields["seq_lens"],
        max_query_len=longest(query_start_loc) if query_start_loc else 0,
        max_seq_len=max(fields["seq_lens"], default=0),
    )


def longest(offsets: Sequence[int]) -> int:
    """The most rows of any request."""
    return max((end - begin for begin, end in pairwise(offsets)), default=0)


def announced_chunks(prefill_metadata: Any) -> list[tuple[int, Any, Any]]:
    """``(index, query_start_loc, cu_seq_lens)`` of the chunks that a batch announces."""
    context = getattr(prefill_metadata, "chunked_context", None)
    if context is None:
        return []
    chunks = getattr(context, "chunks", None)
    if chunks is None and hasattr(context, "cu_seq_lens"):
        return [
            chunk_by_index(prefill_metadata, index) for index in range(len(context.cu_seq_lens))
        ]
    if not isinstance(chunks, Sequence) or isinstance(chunks, str):
        raise TypeError(
            f"chunked_context.chunks: must be a sequence of chunks, not {type(chunks).__name__}"
        )
    return [_announced(chunk, index) for index, chunk in enumerate(chunks)]


def _announced(chunk: Any, index: int) -> tuple[int, Any, Any]:
    name = f"chunked_context.chunks[{index}]"
    offsets = part(chunk, "query_start_loc", name), part(chunk, "cu_seq_lens", name)
    return (getattr(chunk, "index", index), *offsets)


def chunk_by_index(prefill_metadata: Any, index: int) -> tuple[int, Any, Any]:
    """A chunk as vLLM had it up to 0.27: its number, and all of the batch's queries."""
    context = getattr(prefill_metadata, "chunked_context", None)
    offsets = getattr(context, "cu_seq_lens", None)
    if offsets is None:
        raise ValueError(f"chunk_idx = {index}: the batch has no chunked_context.cu_seq_lens")
    if not 0 <= index < len(offsets):
        raise ValueError(f"chunk_idx = {index}: must be 0 to {len(offsets)}, the last excluded")
    return index, prefill_metadata.query_start_loc, offsets[index]
