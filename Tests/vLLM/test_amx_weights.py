# SPDX-License-Identifier: Apache-2.0
"""The up-projection that the AMX_MLA subclass keeps from the layer."""

from types import SimpleNamespace

import pytest
import torch
from mla_prefill.vllm_plugin.amx_mla import UpProjection, _dense_weight


@pytest.mark.parametrize("scale_name", ["weight_scale_inv", "weight_scale"])
def test_fp8_blocks_are_dequantized(scale_name):
    # Neither dimension is a multiple of its block.
    weight = torch.randn(300, 200).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 2) + 0.5
    layer = SimpleNamespace(weight=weight, weight_block_size=[128, 128], **{scale_name: scale})
    dense = _dense_weight(layer, torch.bfloat16)
    expected = torch.empty(300, 200)
    for row in range(300):
        for column in range(200):
            block = scale[row // 128, column // 128]
            expected[row, column] = weight[row, column].float() * block
    assert torch.equal(dense, expected.bfloat16())


def test_up_projection_is_called_as_a_layer():
    weight = torch.randn(96, 64).bfloat16()
    rows = torch.randn(5, 64).bfloat16()
    output, bias = UpProjection(weight)(rows)
    assert bias is None
    assert torch.equal(output, torch.nn.functional.linear(rows, weight))
