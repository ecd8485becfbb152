# SPDX-License-Identifier: Apache-2.0
"""The lightning indexer of DeepSeek Sparse Attention (DeepSeek-V3.2, GLM-5), on the CPU."""

from typing import Any

from mla_prefill import _core, _tensors
from mla_prefill._choices import code_of
from mla_prefill._untraced import untraced

#: MLA_INDEX_FORMAT_* by name.
INDEX_FORMATS = {"plain": 0, "fp8_block": 1}
#: MLA_INDEX_SCALE_* by name.
SCALE_FORMATS = {"float32": 0, "power_of_two": 1}
#: The header's.
_MOST_TOPK = 1 << 20


@untraced
def store(
    k: Any,
    index_cache: Any,
    slot_mapping: Any,
    format: str = "plain",
    scale_format: str = "float32",
    hadamard: bool = False,
) -> None:
    """Puts keys into an index cache, in place (vLLM: indexer_k_quant_and_cache).

    Args:
        k: ``[tokens, head_dim]`` of bf16, fp16 or fp32, with norm and rope applied.
        index_cache: ``[num_blocks, block_size, head_dim]`` of bf16, fp16 or fp32; with
            "fp8_block" ``[num_blocks, block_size, head_dim + 4]`` of fp8_e4m3 or uint8, all of
            a block side by side: its keys, then a float32 scale for each. Or without
            ``block_size``, blocks of one token. Its memory must be known to be writable: JAX's
            arrays are not.
        slot_mapping: a tensor or sequence of integers: token i goes to block
            ``slot_mapping[i] // block_size`` at ``slot_mapping[i] % block_size``, nowhere if
            it is -1; of tokens with the same slot the last has it. May be shorter than ``k``.
        format: "plain" or "fp8_block".
        scale_format: how scales are made: "float32", ``max(largest |x|, 1e-4) / 448``, or
            "power_of_two", that rounded up to one (vLLM: ue8m0).
        hadamard: whether keys are turned by the Hadamard matrix times ``head_dim ** -0.5``.

    Raises:
        TypeError, ValueError: an argument breaks a rule; the text names it, and nothing
            has been written.
    """
    _core.index_store(
        k,
        index_cache,
        slot_mapping,
        code_of(format, INDEX_FORMATS, "format"),
        code_of(scale_format, SCALE_FORMATS, "scale_format"),
        hadamard,
    )


@untraced
def select(
    q: Any,
    weights: Any,
    index_cache: Any,
    block_table: Any,
    query_start_loc: Any,
    context_lens: Any = None,
    *,
    topk: Any = None,
    visible_keys: Any = None,
    topk_indices: Any = None,
    scores: Any = None,
    format: str = "plain",
    quantize_q: bool = False,
    scale_format: str = "float32",
    hadamard: bool = False,
    first_row: int = 0,
    num_rows: int = 0,
) -> Any:
    """Selects the keys that each token attends to (vLLM: sparse_attn_indexer).

    A token's score for key s is ``scale_s * sum_h weights[h] * relu(q[h] . k_s)``. It gets the
    ``topk`` keys of the highest scores, of equal ones the earlier, a NaN last; all keys that it
    sees, where these are no more.

    Args:
        q: ``[tokens, heads, head_dim]`` of bf16, fp16, fp32, or fp8_e4m3 (or uint8) that is
            quantized already.
        weights: ``[tokens, heads]`` of float32; of fp8 queries with their scales multiplied in.
        index_cache: as ``store`` has it; may be read-only. The new tokens' keys are in it, too.
        block_table: ``[requests, max_blocks]``: key s of request i is in block
            ``block_table[i, s // block_size]`` at ``s % block_size``. A tensor of int32 or int64,
            or a list of lists that need not be equally long. None: request i has block i alone,
            there being one for each.
        query_start_loc: ``[requests + 1]`` offsets into the rows of ``q``, from 0.
        context_lens: ``[requests]`` tokens that each had before its new ones. None: 0.
        topk: how many keys a token gets; None: the width of ``topk_indices``.
        visible_keys: ``[tokens]``: how many of its request's keys a token sees, the first
            ones. None: its context and the new tokens up to itself.
        topk_indices: ``[tokens, topk]`` of int32 to write into: positions in the request,
            ascending, then -1; rows of no request, and those that are not worked on, stay as they
            are. None: a new tensor of the kind of ``q``, in which they are -1.
        scores: ``[tokens, topk]`` of float32 to write the keys' scores into, then -inf. None:
            nobody wants them.
        format: as ``store`` has it.
        scale_format: as ``store`` has it.
        quantize_q: whether ``q`` is quantized as keys are, a scale for each head.
        hadamard: whether ``q`` is turned as ``store`` turns keys.
        first_row: which row of ``q`` to begin with, for ranks that share them.
        num_rows: how many rows to work on; 0, and 0 for ``first_row``: all. A rank without
            rows makes no call.

    Returns:
        ``topk_indices``, or the new tensor.

    Raises:
        TypeError, ValueError: an argument breaks a rule; the text names it, and nothing
            has been written.
    """
    formats = (
        code_of(format, INDEX_FORMATS, "format"),
        code_of(scale_format, SCALE_FORMATS, "scale_format"),
    )
    given = topk_indices
    if given is None:
        shape = (_tensors.rows_of(q), _core.integer(topk, "topk"))
        if not 1 <= shape[1] <= _MOST_TOPK:
            raise ValueError(f"topk = {shape[1]}: must be 1 to {_MOST_TOPK}")
        given = _tensors.filled_integers(q, shape, -1, "topk_indices")
    elif topk is not None:
        # Of another kind or shape it is refused below.
        width = tuple(getattr(given, "shape", ()))[1:2]
        if width and _core.integer(topk, "topk") != width[0]:
            raise ValueError(f"topk = {topk}: must be the width of topk_indices, {width[0]}")
    _core.index_select(
        q,
        weights,
        index_cache,
        block_table,
        query_start_loc,
        context_lens,
        visible_keys,
        given,
        scores,
        formats[0],
        quantize_q,
        formats[1],
        hadamard,
        first_row,
        num_rows,
    )
    return given
