# SPDX-License-Identifier: Apache-2.0
"""The lightning indexer on torch's tensors."""

import torch

from mla_prefill import indexer


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
