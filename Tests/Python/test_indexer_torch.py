# SPDX-License-Identifier: Apache-2.0
"""The lightning indexer on torch's tensors."""

import torch
from torch.library import opcheck

import mla_prefill.torch_ops  # noqa: F401  registers torch.ops.mla_prefill
from mla_prefill import indexer

OPERATORS = torch.ops.mla_prefill


def test_selects_the_best():
    torch.manual_seed(1)
    k = torch.randn(40, 64).bfloat16()
    q, weights = torch.randn(6, 8, 64).bfloat16(), torch.randn(6, 8)
    cache = torch.zeros(5, 8, 64, dtype=torch.bfloat16)
    indexer.store(k, cache, torch.arange(40))
    table = torch.arange(5, dtype=torch.int32)[None]
    got = indexer.select(q, weights, cache, table, torch.tensor([0, 6]), [34], topk=5)
    assert got.dtype == torch.int32 and got.shape == (6, 5)
    products = torch.relu(torch.einsum("thd,sd->ths", q.double(), k.double()))
    scores = torch.einsum("th,ths->ts", weights.double(), products)
    for row in range(6):
        best = scores[row, : 35 + row].topk(5).indices.sort().values
        assert torch.equal(got[row].long(), best)


def test_fp8_queries_and_blocks():
    torch.manual_seed(2)
    cache = torch.zeros(2, 16, 68, dtype=torch.uint8)
    k = torch.randn(32, 64)
    indexer.store(k, cache, torch.arange(32), "fp8_block", "power_of_two")
    q = torch.randn(1, 2, 64).to(torch.float8_e4m3fn)
    scores = torch.zeros(1, 32)
    out = torch.full((1, 32), 9, dtype=torch.int32)
    table = torch.tensor([[0, 1]])
    result = indexer.select(
        q, torch.ones(1, 2), cache, table, [0, 1], [31], topk_indices=out, scores=scores, format="fp8_block"
    )
    assert result is out and out[0].tolist() == list(range(32))
    flat = cache.reshape(2, -1)
    codes = flat[:, : 16 * 64].contiguous().view(torch.float8_e4m3fn).double().reshape(32, 64)
    scales = flat[:, 16 * 64 :].contiguous().view(torch.float32).double().reshape(32, 1)
    right = torch.relu(q[0].double() @ (codes * scales).T).sum(0)
    torch.testing.assert_close(scores[0].double(), right, rtol=1e-5, atol=1e-4)


def test_operators():
    """One graph with what stores and what selects, whose rounding and formats they are told."""
    torch.manual_seed(3)
    k, weights = torch.randn(40, 64).bfloat16(), torch.randn(6, 8)
    q = torch.randn(6, 8, 64).bfloat16()
    table = torch.arange(3, dtype=torch.int32)[None]
    loc, lens, slots = torch.tensor([0, 6]), torch.tensor([34]), torch.arange(40)
    options = dict(format="fp8_block", scale_format="power_of_two", hadamard=True)

    def step(cache):
        OPERATORS.index_store(k, cache, slots, **options)
        return OPERATORS.index_select(q, weights, cache, table, loc, lens, 5, quantize_q=True, **options)

    expected = torch.zeros(3, 16, 68, dtype=torch.uint8)
    indexer.store(k, expected, slots, **options)
    best = indexer.select(
        q, weights, expected, table, loc, lens, topk=5, quantize_q=True, **options
    )
    for call in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        cache = torch.zeros_like(expected)
        with torch.no_grad():
            assert torch.equal(call(cache), best)
        assert torch.equal(cache, expected)
    some = OPERATORS.index_select(
        q, weights, expected, table, loc, lens, 5, first_row=2, num_rows=3, quantize_q=True, **options
    )
    assert torch.equal(some[2:5], best[2:5]) and (some[[0, 1, 5]] == -1).all()
    visible = OPERATORS.index_select(
        q, weights, expected, table, loc, lens, 5, visible_keys=torch.full((6,), 3), **options
    )
    assert torch.equal(visible, torch.tensor([[0, 1, 2, -1, -1]] * 6, dtype=torch.int32))
    opcheck(OPERATORS.index_store, (k, expected, slots), options)
    opcheck(OPERATORS.index_select, (q, weights, expected, table, loc, lens, 5), {"format": "fp8_block"})
