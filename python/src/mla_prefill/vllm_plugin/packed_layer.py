# SPDX-License-Identifier: Apache-2.0
"""The layer of an up-projection that may change. Imports vLLM."""

from typing import Any

import torch

from mla_prefill.configuration import HEAD_DIMENSIONS
from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.vllm_plugin.contents import Contents
from mla_prefill.vllm_plugin.projection import dequantized_weights, projected, stored_weights

#: Of its length, how far what kv_b_proj gives may be from what its weights give: a fortieth
#: where vLLM rounds latents to fp8; weights that are read in a wrong way give anything.
_TOLERANCE = 1 / 16


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
        self._contents = contents
        # Neither types nor shapes tell whether one of vLLM's kernels has rearranged weights.
        for read in (stored_weights, dequantized_weights):
            try:
                weights = read(kv_b_proj, self._dtype)
                layer = MLAPrefillLayer(**self._arguments, **weights, dtype=self._dtype)
                with torch.no_grad():
                    is_right = self._projects_as(layer, kv_b_proj)
                if is_right:
                    self._layer = layer
                    return
                self._layer = "kv_b_proj does other than its weights say"
            except Exception as error:
                # vLLM goes on, and so does the request in the middle of which this is.
                self._layer = f"kv_b_proj cannot be packed: {type(error).__name__}: {error}"

    def _projects_as(self, layer: MLAPrefillLayer, kv_b_proj: Any) -> bool:
        """Whether both make the same keys and values of some latents, each a request's only
        token: then the output is its value, and the lse its score."""
        heads, nope, rope, v = (self._arguments[name] for name in ("num_heads", *HEAD_DIMENSIONS))
        generator, tokens = torch.Generator("cpu").manual_seed(0), 16
        # vLLM has other defaults while it loads a model.
        fp32 = {"dtype": torch.float32, "device": "cpu"}
        q, latents = (
            torch.randn(tokens, *shape, generator=generator, **fp32).to(self._dtype)
            for shape in ((heads, nope + rope), (self._arguments["kv_lora_rank"],))
        )
        k_pe = torch.zeros(tokens, rope, dtype=self._dtype, device="cpu")
        scores = torch.empty(heads, tokens, **fp32)
        offsets = list(range(tokens + 1))
        values = layer.forward(q, latents, k_pe, query_start_loc=offsets, lse=scores)
        of_heads = projected(kv_b_proj, latents).view(tokens, heads, nope + v).float()
        k, v_of_heads = of_heads.split([nope, v], dim=-1)
        products = (q[..., :nope].float() * k).sum(-1).T * self._arguments["scale"]
        return _is_near(values.float(), v_of_heads) and _is_near(scores, products)


def _is_near(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).norm() <= _TOLERANCE * theirs.norm())


def _is_released(kv_b_proj: Any) -> bool:
    """Whether vLLM has emptied it, as AMX_MLA does: nothing can change it then."""
    weight = getattr(kv_b_proj, "weight", None)
    return weight is not None and weight.numel() == 0
