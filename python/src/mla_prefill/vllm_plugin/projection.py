# SPDX-License-Identifier: Apache-2.0
"""What vLLM's kv_b_proj is: its weights, whatever it keeps them as, and what it does."""

from typing import Any

import torch
from vllm.model_executor.layers.quantization.utils import quant_utils


def stored_weights(kv_b_proj: Any, dtype: torch.dtype) -> dict[str, Any]:
    """As `MLAPrefillLayer` takes them, if they lie as a checkpoint has them: unquantized, or
    of fp8 with a scale for all, one a row, or one a block."""
    weight = kv_b_proj.weight.detach()
    if weight.dtype != torch.float8_e4m3fn:
        return {"kv_b_proj": weight}
    scales = getattr(kv_b_proj, "weight_scale_inv", None)
    if scales is None:
        scales = kv_b_proj.weight_scale
    return {
        # vLLM keeps all but blocks transposed.
        "kv_b_proj": weight if weight.is_contiguous() else weight.mT,
        "weight_scales": scales.detach(),
        "weight_block": getattr(kv_b_proj, "weight_block_size", None),
    }


def dequantized_weights(kv_b_proj: Any, dtype: torch.dtype) -> dict[str, Any]:
    """What vLLM's own decode takes them for, ``dtype`` whatever they are stored as."""
    weight = quant_utils.get_and_maybe_dequant_weights(kv_b_proj, dtype).detach()
    # Of most methods it is the transpose of what they make of an identity matrix.
    return {"kv_b_proj": weight.contiguous()}


def projected(kv_b_proj: Any, rows: torch.Tensor) -> torch.Tensor:
    """What it makes of ``[tokens, kv_lora_rank]``."""
    try:
        return kv_b_proj(rows)[0]
    except Exception:
        # AMX_MLA never calls it, and of some scales it could not: it reads the weights.
        return rows @ dequantized_weights(kv_b_proj, rows.dtype)["kv_b_proj"].T
