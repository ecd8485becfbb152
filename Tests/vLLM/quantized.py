# SPDX-License-Identifier: Apache-2.0
"""A quantized kv_b_proj: vLLM's own linear layer, loaded as from a checkpoint, and a double."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from vllm.model_executor.layers.linear import ColumnParallelLinear
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsConfig,
)
from vllm.model_executor.layers.quantization.fp8 import Fp8Config
from vllm.utils.torch_utils import set_default_torch_dtype
from without_engine import RANK, ROWS


@dataclass(frozen=True)
class Scheme:
    """How a checkpoint is quantized."""

    name: str
    config: Callable[[], Any]
    #: A checkpoint's tensors, and what they stand for.
    tensors: Callable[[torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor]]

    def __str__(self) -> str:
        return self.name

    def load(self) -> tuple[ColumnParallelLinear, torch.Tensor]:
        """In vLLM's configuration: the layer, and what it stands for."""
        values = torch.randn(ROWS, RANK, generator=torch.Generator().manual_seed(0))
        # Scales that differ, wherever they do.
        values *= torch.linspace(0.5, 2, ROWS)[:, None] * torch.linspace(0.5, 2, RANK) / RANK**0.5
        tensors, meant = self.tensors(values)
        with set_default_torch_dtype(torch.bfloat16):
            layer = ColumnParallelLinear(
                RANK,
                ROWS,
                bias=False,
                params_dtype=torch.bfloat16,
                quant_config=self.config(),
                prefix="model.layers.0.self_attn.kv_b_proj",
            )
            # As vLLM's MLA attention marks it.
            layer._cpu_skip_gemm_dispatch = True
            for name, parameter in layer.named_parameters():
                parameter.data.copy_(tensors[name])
            layer.quant_method.process_weights_after_loading(layer)
        return layer, meant


def fp8_blocks(rows: int, columns: int, e8m0: bool = False) -> Scheme:
    def config() -> Fp8Config:
        made = Fp8Config(weight_block_size=[rows, columns])
        made.is_scale_e8m0 = e8m0
        return made

    def tensors(values):
        blocks = values.view(ROWS // rows, rows, RANK // columns, columns)
        scales = blocks.abs().amax((1, 3)) / 448
        if e8m0:
            scales = scales.log2().ceil().exp2().to(torch.float8_e8m0fnu)
        each = scales.float().repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        weight = (values / each).to(torch.float8_e4m3fn)
        return {"weight": weight, "weight_scale_inv": scales}, weight.float() * each

    return Scheme(f"fp8 {rows}x{columns}{' e8m0' if e8m0 else ''}", config, tensors)


def fp8_tensor() -> Scheme:
    return Scheme("fp8 tensor", Fp8Config, lambda values: _by_row(values, 448, whole=True))


def fp8_channel() -> Scheme:
    def config() -> CompressedTensorsConfig:
        return _compressed("float-quantized", {"strategy": "channel"}, {"strategy": "token"})

    return Scheme("fp8 channel", config, lambda values: _by_row(values, 448))


def int8_channel() -> Scheme:
    def config() -> CompressedTensorsConfig:
        weights, activations = ({"type": "int", "strategy": by} for by in ("channel", "token"))
        return _compressed("int-quantized", weights, activations)

    return Scheme("int8 channel", config, lambda values: _by_row(values, 127))


def int4_groups(size: int) -> Scheme:
    def config() -> CompressedTensorsConfig:
        weights = {"type": "int", "num_bits": 4, "strategy": "group", "group_size": size}
        return _compressed("pack-quantized", weights, None)

    def tensors(values):
        groups = values.view(ROWS, RANK // size, size)
        scales = (groups.abs().amax(-1) / 7).bfloat16()
        numbers = (groups / scales.float()[..., None]).round().clamp(-8, 7)
        nibbles = numbers.view(ROWS, RANK // 8, 8).to(torch.int64) + 8
        packed = (nibbles << torch.arange(0, 32, 4)).sum(-1).to(torch.int32)
        names = {
            "weight_packed": packed,
            "weight_scale": scales,
            "weight_shape": torch.tensor([ROWS, RANK]),
        }
        return names, (numbers * scales.float()[..., None]).view(ROWS, RANK)

    return Scheme(f"int4 groups of {size}", config, tensors)


def _by_row(values, most, whole=False):
    scales = values.abs().amax(1, keepdim=True) / most
    if whole:
        scales = scales.max().view(1)
    exact = values / scales
    weight = exact.to(torch.float8_e4m3fn) if most == 448 else exact.round().to(torch.int8)
    return {"weight": weight, "weight_scale": scales}, weight.float() * scales


def _compressed(layout: str, weights: dict, activations: dict | None) -> CompressedTensorsConfig:
    common = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": common | {"dynamic": False} | weights,
        "input_activations": activations and common | {"dynamic": True} | activations,
    }
    return CompressedTensorsConfig.from_config(
        {
            "quant_method": "compressed-tensors",
            "format": layout,
            "ignore": [],
            "config_groups": {"group_0": group},
        }
    )


class Fp8:
    """One of vLLM's linear layers of fp8.

    Args:
        block: rows and columns that have a scale; None: as ``scale`` has them.
        name: of the scales.
    """

    def __init__(self, weight, block, scale, name="weight_scale"):
        self.meant = lambda: weight.float() * _spread(getattr(self, name), block)
        # Transposed, as vLLM keeps all but blocks.
        self.weight = weight if block else weight.T
        self.weight_block_size = block
        setattr(self, name, scale)

    def __call__(self, rows):
        return torch.nn.functional.linear(rows, self.meant().to(rows.dtype)), None


def _spread(scale, block):
    scale = scale.float()
    if block:
        # Some of the last blocks are less.
        scale = scale.repeat_interleave(block[0], 0)[:ROWS]
        scale = scale.repeat_interleave(block[1], 1)[:, :RANK]
    return scale


def fp8_weight():
    return (torch.randn(ROWS, RANK) / RANK**0.5 * 20).to(torch.float8_e4m3fn)


def scales(*shape):
    return (torch.rand(shape) + 0.5) / 20
