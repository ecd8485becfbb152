# SPDX-License-Identifier: Apache-2.0
"""attention() on torch's tensors, beside torch's own."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mla_prefill import attention


def tensors(dtype, batch, heads, rows, keys, kv_heads, dim=64):
    generator = torch.Generator().manual_seed(3)

    def tensor(heads, length):
        # Lies as models have it, a token's heads side by side.
        made = torch.randn(batch, length, heads, dim, generator=generator)
        return made.to(dtype).transpose(1, 2)

    return tensor(heads, rows), tensor(kv_heads, keys), tensor(kv_heads, keys)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("rows, keys, causal", [(33, 33, "start"), (33, 50, None), (1, 300, "end")])
def test_as_torch_has_it(dtype, rows, keys, causal):
    q, k, v = tensors(dtype, 2, 8, rows, keys, 2)
    out, lse = attention(q, k, v, causal=causal, return_lse=True)
    exact = (tensor.double() for tensor in (q, k, v))
    expected = scaled_dot_product_attention(*exact, is_causal=causal == "start", enable_gqa=True)
    error = (out.double() - expected).norm() / expected.norm()
    assert error < {torch.float32: 1e-5, torch.float16: 1e-3}.get(dtype, 4e-3)
    assert out.dtype == dtype and lse.dtype == torch.float32 and lse.shape == (2, 8, rows)
    # The layout of torch's own: who projects a token's heads next needs no copy.
    assert out.stride() == scaled_dot_product_attention(q, q, q).stride()
    assert out.transpose(1, 2).is_contiguous()


def test_what_comes_out_is_of_the_caller_s_kind():
    q, k, v = tensors(torch.bfloat16, 1, 4, 5, 9, 2)
    assert attention(q, k, v, output_scale=0.1).dtype == torch.float8_e4m3fn
    given = torch.empty(1, 4, 5, 64, dtype=torch.float32)
    assert attention(q, k, v, out=given) is given
    offsets = torch.tensor([0, 5], dtype=torch.int32)
    rows = [tensor[0].transpose(0, 1) for tensor in (q, k, v)]
    ragged = attention(
        *rows, cu_seqlens_q=offsets, k_begin=torch.tensor([2]), k_count=torch.tensor([7]), causal="end"
    )
    assert (ragged == attention(q, k[:, :, 2:], v[:, :, 2:], causal="end")[0].transpose(0, 1)).all()


def test_static_cache():
    """A cache that is not full, whose rest nobody reads."""
    q, k, v = tensors(torch.float32, 2, 4, 3, 40, 2)
    k, v = k.contiguous(), v.contiguous()
    k[0, :, 20:] = v[0, :, 20:] = torch.nan
    out = attention(q, k, v, k_count=[20, 40], causal="end")
    alone = attention(q[:1], k[:1, :, :20], v[:1, :, :20], causal="end")
    assert (out[:1] == alone).all() and not out.isnan().any()
