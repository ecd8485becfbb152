# SPDX-License-Identifier: Apache-2.0
"""Integers, which are only read: of any kind of memory, and of those that count alone."""

import ml_dtypes
import numpy as np
import pytest
from calls import LAYER, PROBLEM, TENSORS, batch, cached
from reference_layer import LayerProblem
from test_backends import backend_for
from test_dlpack import without_memory
from test_layer import layer_for

from mla_prefill import ContextChunk, concat_and_cache_mla, plan_context_chunks


class OldArray(np.ndarray):
    """An array with the DLPack export of NumPy before 2.1."""

    def __dlpack__(self, *, stream=None):
        if not self.flags.writeable:
            raise BufferError("Cannot export readonly array")
        return super().__dlpack__(stream=stream)


def broadcast(values, dtype):
    array = np.array(values, dtype)
    return np.broadcast_to(array, array.shape)


READ_ONLY = {
    "frombuffer": lambda values, dtype: np.frombuffer(np.array(values, dtype).tobytes(), dtype),
    "broadcast": broadcast,
    "old": lambda values, dtype: broadcast(values, dtype).view(OldArray),
    "memoryview": lambda values, dtype: memoryview(np.array(values, dtype)).toreadonly(),
    # Buffers without strides.
    "ctypes": lambda values, dtype: np.ctypeslib.as_ctypes(np.array(values, dtype)),
}


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kind", READ_ONLY)
def test_read_only_integers(kind, dtype):
    def fixed(values):
        shape = np.shape(values)
        array = READ_ONLY[kind](values, dtype)
        return array.reshape(shape) if isinstance(array, np.ndarray) else array

    table = [LAYER.block_table[0]]
    context = {"block_table": fixed(table), "context_lens": fixed([3])}
    queries = fixed([0, 5])
    LAYER.check(
        layer_for(LAYER).forward(**{**LAYER.tensors, **context, "query_start_loc": queries})
    )
    cache = cached()
    concat_and_cache_mla(LAYER.kv_c_normed, LAYER.k_pe, cache, fixed([0, 1, 2, 3, 9]))
    assert (cache[1, 1, : LAYER.rank] == LAYER.kv_c_normed[4]).all()
    batch(queries)
    assert plan_context_chunks(fixed([3]), 16, 16, queries)[0].seq_lens == (3,)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.int16, np.float32])
def test_other_elements_are_no_integers(dtype):
    with pytest.raises(TypeError, match="^query_start_loc: must hold int32 or int64"):
        batch(np.array([0, 5], dtype))


def test_read_only_tensors_of_old_numpy():
    arrays = {}
    for name in "qkv":
        for kind in (np.float32, np.float16, ml_dtypes.bfloat16):
            array = getattr(PROBLEM, name).astype(kind).view(OldArray)
            array.flags.writeable = False
            arrays.setdefault(kind, []).append(array)
    for tensors in arrays.values():
        backend_for(PROBLEM).run_prefill_new_tokens(*tensors, False)


@pytest.mark.parametrize("kind", [np.array, list])
def test_block_numbers_that_are_not_read_may_be_anything(kind):
    problem = LayerProblem([7, 5], [20, 3])
    first, second = problem.block_table[0], problem.block_table[1]
    big = [1 << 40, -(1 << 62)]
    table = [[*first, big[0]], [*second, *big, 2**31], [*big, *big]]
    layer = layer_for(problem)
    problem.check(layer.forward(**{**problem.tensors, "block_table": kind(table)}))
    table[1][0] = 1 << 40
    with pytest.raises(ValueError, match=r"^block_table\[1\]\[0\] = 1099511627776: must fit 32"):
        layer.forward(**{**problem.tensors, "block_table": kind(table)})


def test_numbers_beyond_32_bits_are_named():
    for beyond in (2**32 + 5, -(2**40)):
        offsets = np.array([0, beyond])
        for kind in (offsets, offsets.tolist(), memoryview(offsets)):
            text = rf"^query_start_loc\[1\] = {beyond}: must fit 32 bits"
            with pytest.raises(ValueError, match=text):
                batch(kind)


def endless(kind):
    return np.broadcast_to(kind(0), 2**32 + 1)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_lists_that_no_memory_holds(kind):
    """Broadcasts of one element: their length is no count of requests, cut or not."""
    many = endless(kind)
    for name, call in {
        "query_start_loc": lambda: batch(many),
        "query_start_loc.*": lambda: layer_for(LAYER).forward(
            **{**LAYER.tensors, "query_start_loc": many}
        ),
        "context_lens": lambda: layer_for(LAYER).workspace_size([0, 5], many),
        "slot_mapping": lambda: concat_and_cache_mla(LAYER.kv_c_normed, LAYER.k_pe, cached(), many),
        "context_lens.*": lambda: plan_context_chunks(many, 16),
        "chunk.cu_seq_lens": lambda: backend_for(PROBLEM).run_prefill_context_chunk(
            ContextChunk(query_start_loc=[0, 5], cu_seq_lens=many), **TENSORS
        ),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: has 4294967297 entries, must have at most"):
            call()
    with pytest.raises(ValueError, match="slot_mapping: has more entries, must have at most 6"):
        concat_and_cache_mla(LAYER.kv_c_normed, LAYER.k_pe, cached(), range(2**40))
    table = np.broadcast_to(np.int64(LAYER.block_table[0][0]), (2**28, 2**31 - 1))
    problem = LayerProblem([5], [3])
    problem.check(layer_for(problem).forward(**{**problem.tensors, "block_table": table}))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_without_memory(dtype):
    table = without_memory(np.array([LAYER.block_table[0]], dtype))
    for name, call in {
        "query_start_loc": lambda tensor: batch(tensor),
        "context_lens": lambda tensor: layer_for(LAYER).workspace_size([0, 5], tensor),
        "block_table": lambda _: layer_for(LAYER).forward(
            **{**LAYER.tensors, "block_table": table}
        ),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}.data = NULL: must not be NULL"):
            call(without_memory(np.array([0, 5], dtype)))
    assert not plan_context_chunks(without_memory(np.array([], dtype)), 16)


def test_unaligned_and_scattered_tables():
    problem = LayerProblem([7, 5], [20, 3])
    rows = np.array([[*problem.block_table[0]], [*problem.block_table[1], -1, -1]], np.int32)
    unaligned = np.zeros(rows.nbytes + 1, np.uint8)[1:].view(np.int32).reshape(rows.shape)
    unaligned[...] = rows
    records = np.zeros(rows.shape, [("flag", "i1"), ("block", "i4")])
    records["block"] = rows
    for table in (unaligned, records["block"], np.asfortranarray(rows), rows[::-1].copy()[::-1]):
        problem.check(layer_for(problem).forward(**{**problem.tensors, "block_table": table}))
