# SPDX-License-Identifier: Apache-2.0
"""A chunk of the context out of a paged cache: the rows that vLLM's own operator for the CPU gives."""

import pytest
import torch
from vllm import _custom_ops as ops

from mla_prefill import gather_and_maybe_dequant_cache


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_chunks(dtype):
    random = torch.Generator().manual_seed(3)
    cache = torch.randn(40, 16, 576, generator=random).to(dtype)
    table = torch.randperm(40, generator=random).to(torch.int32).reshape(4, 10)
    starts = torch.tensor([0, 32, 7, 0], dtype=torch.int32)
    cu_seq_lens = torch.tensor([0, 100, 101, 101, 141], dtype=torch.int32)
    expected, got = (torch.full((150, 576), 7, dtype=dtype) for _ in range(2))
    ops.gather_mla_context_cache_cpu(
        src_cache=cache, dst=expected, block_table=table, starts=starts, cu_seq_lens=cu_seq_lens
    )
    gather_and_maybe_dequant_cache(cache, got, table, cu_seq_lens, starts)
    assert torch.equal(got, expected)
