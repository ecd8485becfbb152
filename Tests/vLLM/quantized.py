# SPDX-License-Identifier: Apache-2.0
"""A quantized kv_b_proj: vLLM's own linear layer, loaded as from a checkpoint, and a double."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from vllm.model_executor.layers.linear import ColumnParallelLinear
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.utils.torch_utils import set_default_torch_dtype
from without_engine import RANK, ROWS


@dataclass(frozen=True)
class Scheme:
    """How a checkpoint is quantized."""

    name: str
    #: As the configuration of a model has it.
    quantization: dict[str, Any]
    #: Of weights: a checkpoint's tensors, and what they stand for.
    tensors: Callable[[torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor]]
    #: As vLLM sets it, of models that say so.
    is_scale_e8m0: bool = False

    def __str__(self) -> str:
        return self.name

    def load(self) -> tuple[ColumnParallelLinear, torch.Tensor]:
        """In vLLM's configuration: the layer, and what it stands for."""
        method = get_quantization_config(self.quantization["quant_method"])
        config = method.from_config(self.quantization)
        config.is_scale_e8m0 = self.is_scale_e8m0
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
                quant_config=config,
                prefix="model.layers.0.self_attn.kv_b_proj",
            )
            # As vLLM's MLA attention marks it.
            layer._cpu_skip_gemm_dispatch = True
            for name, parameter in layer.named_parameters():
                parameter.data.copy_(tensors[name])
            layer.quant_method.process_weights_after_loading(layer)
        return layer, meant


def fp8_blocks(rows: int, columns: int, e8m0: bool = False) -> Scheme:
    def tensors(values):
        blocks = values.unflatten(0, (-1, rows)).unflatten(2, (-1, columns))
        scales = blocks.abs().amax((1, 3)) / 448
        if e8m0:
            scales = scales.log2().ceil().exp2().to(torch.float8_e8m0fnu)
        each = scales.float().repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        weight = (values / each).to(torch.float8_e4m3fn)
        return {"weight": weight, "weight_scale_inv": scales}, weight.float() * each

    quantization = _fp8(weight_block_size=[rows, columns])
    return Scheme(f"fp8 {rows}x{columns}", quantization, tensors, e8m0)


def fp8_tensor() -> Scheme:
    return Scheme("fp8 tensor", _fp8(), lambda values: _by_row(values, 448, whole=True))


def fp8_channel() -> Scheme:
    quantization = _compressed("float-quantized", {"strategy": "channel"}, {"strategy": "token"})
    return Scheme("fp8 channel", quantization, lambda values: _by_row(values, 448))


def int8_channel() -> Scheme:
    weights, activations = ({"type": "int", "strategy": by} for by in ("channel", "token"))
    quantization = _compressed("int-quantized", weights, activations)
    return Scheme("int8 channel", quantization, lambda values: _by_row(values, 127))


def int4_groups(size: int) -> Scheme:
    def tensors(values):
        groups = values.unflatten(1, (-1, size))
        scales = (groups.abs().amax(-1) / 7).bfloat16()
        numbers = (groups / scales.float()[..., None]).round().clamp(-8, 7)
        nibbles = numbers.flatten(1).unflatten(1, (-1, 8)).to(torch.int64) + 8
        named = {
            "weight_packed": (nibbles << torch.arange(0, 32, 4)).sum(-1).to(torch.int32),
            "weight_scale": scales,
            "weight_shape": torch.tensor(values.shape),
        }
        return named, (numbers * scales.float()[..., None]).flatten(1)

    weights = {"type": "int", "num_bits": 4, "strategy": "group", "group_size": size}
    return Scheme(f"int4 groups of {size}", _compressed("pack-quantized", weights, None), tensors)


def _by_row(values, most, whole=False):
    scales = values.abs().amax(1, keepdim=True) / most
    if whole:
        scales = scales.max().view(1)
    exact = values / scales
    weight = exact.to(torch.float8_e4m3fn) if most == 448 else exact.round().to(torch.int8)
    return {"weight": weight, "weight_scale": scales}, weight.float() * scales


def _fp8(**more: Any) -> dict[str, Any]:
    return {"quant_method": "fp8", "activation_scheme": "dynamic", **more}


def _compressed(layout: str, weights: dict, activations: dict | None) -> dict[str, Any]:
    common = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["re:.*kv_b_proj.*"],
        "weights": common | {"dynamic": False} | weights,
        "input_activations": activations and common | {"dynamic": True} | activations,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": group},
    }


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
