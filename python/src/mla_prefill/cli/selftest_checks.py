# SPDX-License-Identifier: Apache-2.0
"""What ``selftest`` checks: steps of an engine on random numbers against double precision."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, pairwise
from random import Random
from typing import Any, NamedTuple

from mla_prefill import _core
from mla_prefill.cache import concat_and_cache_mla, gather_and_maybe_dequant_cache
from mla_prefill.cli.float64_reference import Rows, attend, dot, largest_error, relative_error
from mla_prefill.cli.model import Model
from mla_prefill.cli.plain_tensors import DTYPES, empty, random_tensor, rows_of
from mla_prefill.configuration import MLAPrefillConfig
from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.metadata import ContextChunk, PrefillMetadata
from mla_prefill.ops import merge_attn_states
from mla_prefill.registry import MLAPrefillBackendEnum, backends

#: For each token, for each head, a row.
Tokens = list[Rows]

HEADS = 2
MODEL = Model(num_heads=HEADS)
DIMENSIONS = MODEL.dimensions
NOPE, ROPE, VALUE = DIMENSIONS.values()
RANK = 64
SCALE = (NOPE + ROPE) ** -0.5
#: Of three requests, rows: more than a kernel's block of keys, and less.
QUERIES = [0, *accumulate((3, 1, 70))]
CONTEXT = [0, *accumulate((40, 9, 25))]
BLOCK_SIZE = 16
#: What rounding comes to: of outputs by relative L2 norm; of lse; of the lse of layers, whose
#: keys are rounded.
OUT_LIMITS = {"float32": 5e-5, "float16": 1.5e-3, "bfloat16": 7e-3}
LSE_LIMIT = 2e-4
LAYER_LSE_LIMITS = {"float32": LSE_LIMIT, "float16": 2e-3, "bfloat16": 1e-2}


class Error(NamedTuple):
    """How far a result is from what it should be, and may be at most."""

    of: str
    found: float
    limit: float

    @property
    def is_within(self) -> bool:
        """NaN is not."""
        return self.found <= self.limit


Check = Callable[[], list[Error]]


def checks() -> Iterator[tuple[str, Check]]:
    """All of them by name. Each raises what the library raises."""
    for dtype in DTYPES:
        yield f"attention {dtype}", partial(_attention, dtype)
    for dtype in DTYPES:
        yield f"merge {dtype}", partial(_merge, dtype)
    for dtype in (*DTYPES, "float8_e4m3fn"):
        yield f"cache {dtype}", partial(_cache, dtype)
    for dtype in DTYPES:
        yield f"layer {dtype}", partial(_layer, dtype)


def _attention(dtype: str) -> list[Error]:
    """Of new tokens to themselves, by each of the backends that the library runs here."""
    q, k, v = _attended(Random(1), QUERIES[-1], dtype)
    expected = _expected(q, _requests(_heads(k), QUERIES), _requests(_heads(v), QUERIES))
    errors = []
    for row in backends(MLAPrefillConfig(dtype=dtype, **DIMENSIONS)):
        if row.is_valid and row.is_runnable:
            backend = _backend(row.name)
            results = backend.run_prefill_new_tokens(q, k, v, return_softmax_lse=True)
            errors += _errors(dtype, results, expected, LSE_LIMIT, f"{row.name} ")
    return errors


def _merge(dtype: str) -> list[Error]:
    """Attention to context and attention to new tokens, merged, is attention to all of them."""
    random = Random(2)
    q, k, v = _attended(random, QUERIES[-1], dtype)
    _, context_k, context_v = _attended(random, CONTEXT[-1], dtype)
    backend = _backend("CPU")
    new_out, new_lse = backend.run_prefill_new_tokens(q, k, v, return_softmax_lse=True)
    chunk = ContextChunk(query_start_loc=QUERIES, cu_seq_lens=CONTEXT)
    context_out, context_lse = backend.run_prefill_context_chunk(chunk, q, context_k, context_v)
    out, lse = empty(v.shape, dtype), empty((HEADS, QUERIES[-1]), "float32")
    merge_attn_states(out, context_out, context_lse, new_out, new_lse, lse)
    keys = _joined(_heads(context_k), _heads(k))
    values = _joined(_heads(context_v), _heads(v))
    return _errors(dtype, (out, lse), _expected(q, keys, values), LSE_LIMIT)


def _cache(dtype: str) -> list[Error]:
    """What goes into a paged cache comes out of it; fp8 rounded once."""
    is_quantized = dtype not in DTYPES
    kind = "float32" if is_quantized else dtype
    scale = 0.01 if is_quantized else None
    latents, k_pe = _latents(Random(3), CONTEXT[-1], kind)
    cache, block_table = _filled_cache(latents, k_pe, dtype, scale)
    rows = empty((CONTEXT[-1], RANK + ROPE), kind)
    gather_and_maybe_dequant_cache(cache, rows, block_table, CONTEXT, cache_scale=scale)
    expected = _side_by_side(latents, k_pe)
    # A number of fp8 has three bits behind its first one.
    return [Error("rows", relative_error(rows_of(rows), expected), 2**-4 if is_quantized else 0)]


def _layer(dtype: str) -> list[Error]:
    """From latents and a paged cache to the output, by both of its ways."""
    random = Random(4)
    q, _, _ = _attended(random, QUERIES[-1], dtype)
    weights = random_tensor(random, (HEADS * (NOPE + VALUE), RANK), dtype, RANK**-0.5)
    latents, k_pe = _latents(random, QUERIES[-1], dtype)
    cached_latents, cached_k_pe = _latents(random, CONTEXT[-1], dtype)
    cache, block_table = _filled_cache(cached_latents, cached_k_pe, dtype)
    projection = rows_of(weights)
    old_keys, old_values = _projected(cached_latents, cached_k_pe, projection)
    new_keys, new_values = _projected(latents, k_pe, projection)
    expected = _expected(q, _joined(old_keys, new_keys), _joined(old_values, new_values))
    errors = []
    for algorithm in ("up_projected", "absorbed"):
        layer = MLAPrefillLayer(
            HEADS, SCALE, RANK, **DIMENSIONS, kv_b_proj=weights, algorithm=algorithm
        )
        lse = empty((HEADS, QUERIES[-1]), "float32")
        lengths = [end - begin for begin, end in pairwise(CONTEXT)]
        out = layer.forward(q, latents, k_pe, cache, block_table, QUERIES, lengths, lse=lse)
        errors += _errors(dtype, (out, lse), expected, LAYER_LSE_LIMITS[dtype], f"{algorithm} ")
    return errors


def _backend(name: str) -> Any:
    """With the batch's metadata."""
    kind = MLAPrefillBackendEnum[name].get_class()
    backend = kind(num_heads=HEADS, scale=SCALE, kv_lora_rank=RANK, **DIMENSIONS)
    backend.prepare_metadata(PrefillMetadata(query_start_loc=QUERIES))
    return backend


def _attended(random: Random, tokens: int, dtype: str) -> list[_core.HostTensor]:
    """Queries, keys and values."""
    widths = (NOPE + ROPE, NOPE + ROPE, VALUE)
    return [random_tensor(random, (tokens, HEADS, width), dtype) for width in widths]


def _latents(random: Random, tokens: int, dtype: str) -> list[_core.HostTensor]:
    """And rotary keys."""
    return [random_tensor(random, (tokens, width), dtype) for width in (RANK, ROPE)]


def _filled_cache(
    latents: _core.HostTensor, k_pe: _core.HostTensor, dtype: str, scale: float | None = None
) -> tuple[_core.HostTensor, list[list[int]]]:
    """The context's tokens in blocks that lie the other way round, and the block table."""
    lengths = [end - begin for begin, end in pairwise(CONTEXT)]
    counts = [-(-length // BLOCK_SIZE) for length in lengths]
    numbers = iter(range(sum(counts) - 1, -1, -1))
    block_table = [[next(numbers) for _ in range(count)] for count in counts]
    slots = [
        blocks[token // BLOCK_SIZE] * BLOCK_SIZE + token % BLOCK_SIZE
        for blocks, length in zip(block_table, lengths, strict=True)
        for token in range(length)
    ]
    cache = empty((sum(counts), BLOCK_SIZE, RANK + ROPE), dtype)
    concat_and_cache_mla(latents, k_pe, cache, slots, cache_scale=scale)
    return cache, block_table


def _projected(
    latents: _core.HostTensor, k_pe: _core.HostTensor, projection: Rows
) -> tuple[Tokens, Tokens]:
    """Keys and values of all heads."""
    keys, values = [], []
    for latent, rope in zip(rows_of(latents), rows_of(k_pe), strict=True):
        numbers = [dot(row, latent) for row in projection]
        heads = _cut(numbers, NOPE + VALUE)
        keys.append([head[:NOPE] + rope for head in heads])
        values.append([head[NOPE:] for head in heads])
    return keys, values


def _expected(q: _core.HostTensor, keys: list[Tokens], values: list[Tokens]) -> tuple[Rows, Rows]:
    """(out, lse) of all requests as the library has them: a row for a head of a token, and one for
    a head."""
    out: Rows = []
    lse: Rows = [[] for _ in range(HEADS)]
    for queries, k, v in zip(_requests(_heads(q), QUERIES), keys, values, strict=True):
        heads = [
            attend(_head(queries, head), _head(k, head), _head(v, head), SCALE)
            for head in range(HEADS)
        ]
        out += [row for rows in zip(*(head.out for head in heads), strict=True) for row in rows]
        for row, head in zip(lse, heads, strict=True):
            row += head.lse
    return out, lse


def _errors(
    dtype: str, found: Any, expected: tuple[Rows, Rows], lse_limit: float, of: str = ""
) -> list[Error]:
    (out, lse), (expected_out, expected_lse) = map(rows_of, found), expected
    return [
        Error(f"{of}out", relative_error(out, expected_out), OUT_LIMITS[dtype]),
        Error(f"{of}lse", largest_error(lse, expected_lse), lse_limit),
    ]


def _heads(tensor: _core.HostTensor) -> Tokens:
    return _cut(rows_of(tensor), HEADS)


def _head(tokens: Tokens, head: int) -> Rows:
    return [token[head] for token in tokens]


def _requests(tokens: Tokens, offsets: list[int]) -> list[Tokens]:
    return [tokens[begin:end] for begin, end in pairwise(offsets)]


def _joined(context: Tokens, new: Tokens) -> list[Tokens]:
    """All tokens of each request."""
    pairs = zip(_requests(context, CONTEXT), _requests(new, QUERIES), strict=True)
    return [old + own for old, own in pairs]


def _side_by_side(left: _core.HostTensor, right: _core.HostTensor) -> Rows:
    return [a + b for a, b in zip(rows_of(left), rows_of(right), strict=True)]


def _cut(values: list[Any], size: int) -> list[Any]:
    return [values[begin : begin + size] for begin in range(0, len(values), size)]
