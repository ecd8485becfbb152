# SPDX-License-Identifier: Apache-2.0
"""Chunks of cached context, and how they are planned and merged."""

from types import SimpleNamespace

import numpy as np
import pytest
from reference import TYPES, Problem, attention, offsets
from test_backends import RUNNABLE, backend_for, no_rows

from mla_prefill import (
    ChunkedContextMetadata,
    ContextChunk,
    PrefillMetadata,
    merge_attn_states,
    plan_context_chunks,
)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", RUNNABLE)
def test_context_chunk(name, dtype):
    problem = Problem([7, 3, 40], context=[50, *(no_rows(name) or [1]), 9], dtype=dtype)
    backend = backend_for(problem, name)
    chunk = ContextChunk(query_start_loc=problem.queries, cu_seq_lens=problem.keys)
    problem.check(
        *backend.run_prefill_context_chunk(chunk=chunk, q=problem.q, k=problem.k, v=problem.v)
    )
    out = np.empty_like(problem.v, shape=(50, 2, 16))
    returned, lse = backend.run_prefill_context_chunk(
        chunk, problem.q, problem.k, problem.v, out=out
    )
    assert returned is out
    problem.check(out, lse)


def whole(lengths, context, heads=2, width=32, value=16):
    """Random q, and k and v of context and new tokens, of each request."""
    random = np.random.default_rng(1)

    def tensor(rows, last):
        return random.standard_normal((rows, heads, last)).astype(np.float32)

    return [
        (tensor(new, width), tensor(old + new, width), tensor(old + new, value))
        for new, old in zip(lengths, context, strict=True)
    ]


def test_chunks_and_merges_give_the_whole():
    lengths, context = [5, 9, 2], [70, 0, 33]
    requests = whole(lengths, context)
    queries = offsets(lengths)
    scale = 32**-0.5
    chunks = plan_context_chunks(context, 48, 16, queries)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks))) and len(chunks) > 2
    q = np.concatenate([request[0] for request in requests])
    new_k, new_v = (
        np.concatenate([request[i][old:] for request, old in zip(requests, context, strict=True)])
        for i in (1, 2)
    )
    backend = backend_for(Problem(lengths))
    backend.prepare_metadata(
        PrefillMetadata(
            query_start_loc=np.array(queries, np.int32),
            chunked_context=ChunkedContextMetadata(chunks=chunks),
        )
    )
    out, lse = backend.run_prefill_new_tokens(q, new_k, new_v, True)
    for chunk in chunks:
        members = range(chunk.request_slice.start, chunk.request_slice.stop)
        k, v = (
            np.concatenate(
                [
                    requests[r][i][start : start + length]
                    for r, start, length in zip(members, chunk.starts, chunk.seq_lens, strict=True)
                ]
            )
            for i in (1, 2)
        )
        rows = chunk.token_slice
        part, part_lse = backend.run_prefill_context_chunk(chunk, q[rows], k, v)
        merge_attn_states(out[rows], part, part_lse, out[rows], lse[:, rows], lse[:, rows])
    for r, (request_q, request_k, request_v) in enumerate(requests):
        rows = slice(queries[r], queries[r + 1])
        # Causal: pad the queries so that they stand at the end of the keys.
        padded = np.concatenate([np.zeros((context[r], 2, 32), np.float32), request_q])
        ends = [0, len(request_k)]
        expected, expected_lse = attention(padded, request_k, request_v, ends, ends, scale, True)
        np.testing.assert_allclose(out[rows], expected[context[r] :], atol=5e-6)
        np.testing.assert_allclose(lse[:, rows], expected_lse[:, context[r] :], atol=5e-6)


def test_chunks_by_number():
    """vLLM up to 0.27: all queries, the chunk's rows of one table."""
    problem = Problem([7, 3], context=[50, 9])
    backend = backend_for(problem)
    metadata = SimpleNamespace(
        query_start_loc=np.array(problem.queries, np.int32),
        chunked_context=SimpleNamespace(cu_seq_lens=np.array([[0, 0, 0], problem.keys], np.int32)),
    )
    backend.prepare_metadata(metadata)
    problem.check(*backend.run_prefill_context_chunk(1, problem.q, problem.k, problem.v))
    problem.check(
        *backend.run_prefill_context_chunk(chunk_idx=1, q=problem.q, k=problem.k, v=problem.v)
    )
    with pytest.raises(ValueError, match="chunk_idx = 2: must be 0 to 2"):
        backend.run_prefill_context_chunk(2, problem.q, problem.k, problem.v)


@pytest.mark.parametrize("queries, keys", [([0, 2, 5], [0, 9]), ([0, 5], [0, 4, 9])])
def test_offsets_of_different_lengths_are_named(queries, keys):
    problem = Problem([5], context=[9])
    chunk = ContextChunk(query_start_loc=queries, cu_seq_lens=keys)
    text = rf"^chunk\.cu_seq_lens: has {len(keys)} entries, must have the {len(queries)} of chunk"
    with pytest.raises(ValueError, match=text):
        backend_for(problem).run_prefill_context_chunk(chunk, problem.q, problem.k, problem.v)


@pytest.mark.parametrize("index", [0, 1, 9, None, "first"])
def test_a_chunk_that_was_not_announced_may_have_any_index(index):
    problem = Problem([7], context=[9])
    chunk = ContextChunk(query_start_loc=problem.queries, cu_seq_lens=problem.keys, index=index)
    problem.check(
        *backend_for(problem).run_prefill_context_chunk(chunk, problem.q, problem.k, problem.v)
    )


def test_plan_without_queries():
    first, last = plan_context_chunks([3, 0, 5], 100)
    assert first.query_start_loc is None and first.cu_seq_lens == (0, 3)
    assert last.request_slice == slice(2, 3) and last.seq_lens == (5,)
    for bad, text in (
        (dict(context_lens=[-1], row_budget=9), r"context_lens\[0\]"),
        (dict(context_lens=[1], row_budget=0), "row_budget"),
        (dict(context_lens=[1], row_budget=9, query_start_loc=[0]), "query_start_loc"),
        (dict(context_lens=[1], row_budget=9, block_size=0), "block_size"),
    ):
        with pytest.raises(ValueError, match=text):
            plan_context_chunks(**bad)


def test_plans_are_let_go():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    lengths, plan = np.full(20_000, 3, np.int32), lambda: plan_context_chunks(lengths, 1 << 20)
    for _ in range(5):
        plan()
    before = resident()
    for _ in range(100):
        plan()
    # All of them would be 32 MB.
    assert resident() - before < 16 << 20
