# SPDX-License-Identifier: Apache-2.0
"""Metadata of a batch, and how its cached context is cut into chunks.

vLLM's own metadata objects serve as well: backends read attributes, no types.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from mla_prefill import _core, _tensors
from mla_prefill._untraced import untraced
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
    #: Of contexts that ranks share (DCP), as vLLM has them; nothing here does.
    padded_local_seq_lens: list[int] | None = None
    local_context_lens_allranks: list[list[int]] | None = None
    padded_local_cu_seq_lens: Any = None
    padded_local_token_to_seq: Any = None
    local_starts: list[int] | None = None

    @property
    def num_requests(self) -> int:
        return len(self.cu_seq_lens) - 1

    @cached_property
    def num_context_tokens(self) -> int:
        """Rows of its k and v."""
        return int(self.cu_seq_lens[-1])

    @cached_property
    def num_local_context_tokens(self) -> int:
        """This rank's share of them: all."""
        return self.num_context_tokens

    @cached_property
    def all_rows_active(self) -> bool:
        """Whether each request has both queries and keys here."""
        return all(_lengths(self.query_start_loc)) and all(_lengths(self.cu_seq_lens))

    @cached_property
    def token_to_seq(self) -> Any:
        """``[num_context_tokens]`` which of the requests a row of k belongs to."""
        lengths = _lengths(self.cu_seq_lens)
        return _like(
            self.cu_seq_lens, [r for r, length in enumerate(lengths) for _ in range(length)]
        )


@dataclass(kw_only=True)
class ChunkedContextMetadata:
    """The chunks of a batch that has cached context. None: not known here."""

    chunks: list[ContextChunk] = field(default_factory=list)
    #: ``[num_requests]`` tokens in the cache, as a tensor and as a list.
    context_lens: Any = None
    context_lens_list: list[int] | None = None
    #: Tokens of requests that have none.
    empty_token_slices: list[slice] | None = None
    workspace: Any = None
    dcp_manager: Any = None


@dataclass(kw_only=True)
class PrefillMetadata:
    """A batch: ``query_start_loc [num_requests + 1]`` are its new tokens' row offsets.

    What a backend is not told before it runs, as types and block table, is None.
    """

    query_start_loc: Any
    max_query_len: int = 0
    chunked_context: ChunkedContextMetadata | None = None
    block_table: Any = None
    q_data_type: Any = None
    output_dtype: Any = None
    prefill_backend: Any = None
    use_dense_mha: bool = False
    topk_mask_workspace: Any = None

    @cached_property
    def query_lens_cpu(self) -> Any:
        """``[num_requests]`` new tokens of each request."""
        return _like(self.query_start_loc, _lengths(self.query_start_loc))


def _lengths(offsets: Any) -> list[int]:
    numbers = offsets.tolist() if hasattr(offsets, "tolist") else offsets
    return [end - begin for begin, end in pairwise(numbers)]


def _like(offsets: Any, numbers: list[int]) -> Any:
    """int32 on the CPU of the library that the offsets are of; a list where they are of none."""
    library = type(offsets).__module__.partition(".")[0]
    return _tensors.offsets(numbers, library) if library in ("torch", "numpy") else numbers


@untraced
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
