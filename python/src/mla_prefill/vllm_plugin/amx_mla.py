# SPDX-License-Identifier: Apache-2.0
"""vLLM's attention backend AMX_MLA with the library's prefill. Imports vLLM.

AMX_MLA attends to new tokens in the latent space, which costs several times the
arithmetic, and never asks a prefill backend. Here its decode, cache and metadata
stay, and prefill goes the common way: up-projection, then the prefill backend for
the new tokens and for chunks of the cached context.
"""

from typing import Any

import torch
from vllm.model_executor.layers.attention.mla_attention import MLACommonImpl
from vllm.model_executor.layers.quantization.utils.quant_utils import (
    get_and_maybe_dequant_weights,
)
from vllm.v1.attention.backends.mla.amx_mla import AMXMLABackend, AMXMLAImpl


class PrefillAMXMLABackend(AMXMLABackend):
    """Stands behind vLLM's AMX_MLA and keeps its name: vLLM looks backends up by it."""

    @staticmethod
    def get_impl_cls() -> type["PrefillAMXMLAImpl"]:
        return PrefillAMXMLAImpl


class PrefillAMXMLAImpl(AMXMLAImpl):
    """AMX_MLA with the prefill of vLLM's other MLA backends."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._kv_b_proj_layer = self.kv_b_proj

    def process_weights_after_loading(self, act_dtype: torch.dtype) -> None:
        # vLLM packs the weight for its decode, empties the layer and comes back
        # with a new one when weights are reloaded.
        self.kv_b_proj = self._kv_b_proj_layer
        weight = _dense_weight(self.kv_b_proj, act_dtype)
        super().process_weights_after_loading(act_dtype)
        self.kv_b_proj = UpProjection(weight)

    forward_mha = MLACommonImpl.forward_mha


class UpProjection:
    """Called as the layer whose weight it keeps alive."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def __call__(self, kv_c_normed: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.nn.functional.linear(kv_c_normed, self.weight), None


def _dense_weight(kv_b_proj: Any, dtype: torch.dtype) -> torch.Tensor:
    """``[num_heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank]`` of ``dtype``."""
    weight = getattr(kv_b_proj, "weight", None)
    block = getattr(kv_b_proj, "weight_block_size", None)
    if weight is None or weight.dtype != torch.float8_e4m3fn or block is None:
        return get_and_maybe_dequant_weights(kv_b_proj, out_dtype=dtype).detach()
    scale = getattr(kv_b_proj, "weight_scale_inv", None)
    if scale is None:
        scale = kv_b_proj.weight_scale
    rows, columns = weight.shape
    scale = scale.float().repeat_interleave(block[0], 0)[:rows]
    scale = scale.repeat_interleave(block[1], 1)[:, :columns]
    return (weight.float() * scale).to(dtype)
