# SPDX-License-Identifier: Apache-2.0
"""The layer of an up-projection that may change. Imports vLLM."""

from typing import Any

import torch

from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.vllm_plugin.contents import Contents


class PackedLayer:
    """`MLAPrefillLayer` of a kv_b_proj, packed anew when that has changed.

    Args:
        arguments: of `MLAPrefillLayer`, but for the weights and their type.
        dtype: of activations.
        kv_b_proj: vLLM's linear layer, loaded.
    """

    def __init__(self, arguments: dict[str, Any], dtype: torch.dtype, kv_b_proj: Any) -> None:
        self._arguments, self._dtype = arguments, dtype
        self._pack(kv_b_proj, Contents(kv_b_proj))

    def follow(self, kv_b_proj: Any) -> MLAPrefillLayer | str:
        """The layer of what ``kv_b_proj`` is now, or why there is none."""
        if hasattr(kv_b_proj, "base_layer"):
            # vLLM's LoRA layers and PEFT's: more goes into their result than weights.
            return f"kv_b_proj has an adapter ({type(kv_b_proj).__name__})"
        if not _is_released(kv_b_proj):
            contents = Contents(kv_b_proj)
            if contents != self._contents:
                self._pack(kv_b_proj, contents)
        return self._layer

    def _pack(self, kv_b_proj: Any, contents: Contents) -> None:
        # Its memory goes first.
        self._layer: MLAPrefillLayer | str = "kv_b_proj is being packed"
        try:
            self._layer = MLAPrefillLayer(
                **self._arguments,
                **projection_weights(kv_b_proj, self._dtype),
                dtype=self._dtype,
            )
        except Exception as error:
            # vLLM goes on, and so does the request in the middle of which this is.
            self._layer = f"kv_b_proj cannot be packed: {type(error).__name__}: {error}"
        self._contents = contents


def projection_weights(kv_b_proj: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """``kv_b_proj`` and, of fp8, ``weight_scales`` as `MLAPrefillLayer` takes them.

    vLLM's CPU kernels leave a kv_b_proj of fp8 blocks as the checkpoint has it, which
    they run on AMX hosts only. What else vLLM makes of weights it undoes itself.
    """
    from vllm.model_executor.layers.quantization.utils import quant_utils

    weight = getattr(kv_b_proj, "weight", None)
    block = getattr(kv_b_proj, "weight_block_size", None)
    if weight is None or weight.dtype != torch.float8_e4m3fn or list(block or ()) != [128, 128]:
        dense = quant_utils.get_and_maybe_dequant_weights(kv_b_proj, out_dtype=dtype)
        return {"kv_b_proj": dense.detach()}
    scales = getattr(kv_b_proj, "weight_scale_inv", None)
    if scales is None:
        scales = kv_b_proj.weight_scale
    return {"kv_b_proj": weight.detach(), "weight_scales": scales.detach().float()}


def _is_released(kv_b_proj: Any) -> bool:
    """Whether vLLM has emptied it, as AMX_MLA does: nothing can change it then."""
    weight = getattr(kv_b_proj, "weight", None)
    return weight is not None and weight.numel() == 0
