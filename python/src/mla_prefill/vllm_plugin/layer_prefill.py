# SPDX-License-Identifier: Apache-2.0
"""The prefill of a vLLM attention backend as one call of the library's layer. Imports vLLM.

vLLM's common way makes keys and values of all heads in memory before a prefill
backend reads them; its AMX_MLA attends in the latent space, which costs several
times the arithmetic. Here latents, the paged cache and the block table go straight
to `MLAPrefillLayer`; decode, cache and metadata stay vLLM's.
"""

from typing import Any

import torch
from vllm.config import get_current_vllm_config_or_none
from vllm.model_executor.layers.attention.mla_attention import (
    MLACommonBaseImpl,
    MLACommonImpl,
    MLACommonPrefillMetadata,
)

from mla_prefill.base import MODEL_ARGUMENTS, model_arguments
from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.vllm_plugin.compatibility import (
    call_differences,
    missing_fields,
    missing_parameters,
)
from mla_prefill.vllm_plugin.packed_layer import PackedLayer
from mla_prefill.vllm_plugin.threads import announce, announce_refusal, use_engine_threads
from mla_prefill.vllm_plugin.usage import counted


class LayerPrefill:
    """What a subclass of one of vLLM's implementations (MLACommonImpl) runs prefill by."""

    #: vLLM's name of the attention backend.
    attention_name: str
    #: As vLLM's constructors set them, with the rest of `model_arguments`.
    num_heads: int
    v_head_dim: int
    kv_b_proj: Any

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._algorithm = _algorithm(get_current_vllm_config_or_none())

    def _layer(self, prefill: Any) -> MLAPrefillLayer | str:
        """What these requests are run by, or why they go vLLM's way."""
        return self._packed.follow(self.kv_b_proj)

    def _context_lens(self, prefill: Any) -> torch.Tensor | None:
        """``[requests]`` tokens in the cache before this step; None: nobody has any."""
        return None

    def process_weights_after_loading(self, act_dtype: torch.dtype) -> None:
        # Weights are packed in parallel, too.
        use_engine_threads()
        # First: vLLM may empty the layer whose weight this is.
        arguments = model_arguments(self) | {"algorithm": self._algorithm}
        self._packed = PackedLayer(arguments, act_dtype, self.kv_b_proj)
        super().process_weights_after_loading(act_dtype)  # type: ignore[misc]

    def forward_mha(
        self,
        q: torch.Tensor,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_c_and_k_pe_cache: torch.Tensor,
        attn_metadata: Any,
        k_scale: torch.Tensor,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
    ) -> None:
        """Attention of a step's prefill requests.

        Args:
            q: ``[tokens, num_heads, qk_head_dim]``.
            kv_c_normed, k_pe: ``[tokens, kv_lora_rank]``, ``[tokens, 1, rope]``.
            kv_c_and_k_pe_cache: ``[blocks, block_size, kv_lora_rank + rope]``.
            output: ``[tokens, num_heads * v_head_dim]``, of fp8 with an ``output_scale``:
                vLLM asks the prefill backend whether that is supported.
        """
        prefill = attn_metadata.prefill
        context_lens = self._context_lens(prefill)
        cached = 0 if context_lens is None else int(context_lens.sum())
        layer = self._layer(prefill)
        if cached and kv_c_and_k_pe_cache.dtype != q.dtype:
            layer = f"the cache is of {kv_c_and_k_pe_cache.dtype}, queries of {q.dtype}"
        if isinstance(layer, str):
            announce_refusal(self.attention_name, layer)
            tensors = q, kv_c_normed, k_pe, kv_c_and_k_pe_cache
            super().forward_mha(  # type: ignore[misc]
                *tensors, attn_metadata, k_scale, output, output_scale
            )
            return
        use_engine_threads()
        announce(f"the layer under {self.attention_name}")
        with counted(layer_calls=1, new_tokens=q.shape[0], context_tokens=cached):
            layer.forward(
                q=q,
                kv_c_normed=kv_c_normed,
                k_pe=k_pe.squeeze(1),
                kv_cache=kv_c_and_k_pe_cache if cached else None,
                block_table=prefill.block_table if cached else None,
                query_start_loc=prefill.query_start_loc,
                context_lens=context_lens,
                out=output.view(-1, self.num_heads, self.v_head_dim),
                output_scale=output_scale,
            )


def _algorithm(config: Any) -> str:
    """Of `MLAPrefillLayer`: one that keeps a second layout of the weights where an engine of
    this configuration can have cached context, on which alone that is used."""
    try:
        has_context = config is None or any(
            (
                config.scheduler_config.enable_chunked_prefill,
                config.cache_config.enable_prefix_caching,
                config.kv_transfer_config is not None,
                config.speculative_config is not None,
            )
        )
    except AttributeError:
        # Not known: either serves all of it.
        has_context = True
    return "auto" if has_context else "up_projected"


def implementation(ours: type[LayerPrefill], theirs: type, *differences: str) -> type:
    """``ours`` where this vLLM is as it must be, else ``theirs``, which it derives from.

    Args:
        differences: what more there is to say against it.
    """
    found = [
        *call_differences(MLACommonImpl.forward_mha, LayerPrefill.forward_mha),
        *call_differences(
            MLACommonImpl.process_weights_after_loading,
            LayerPrefill.process_weights_after_loading,
        ),
        *missing_parameters(MLACommonBaseImpl.__init__, [*MODEL_ARGUMENTS, "kv_b_proj"]),
        *missing_fields(MLACommonPrefillMetadata, ("block_table", "query_start_loc")),
        *differences,
    ]
    if not found:
        return ours
    announce_refusal(ours.attention_name, f"this vLLM is another: {'; '.join(found)}")
    return theirs
