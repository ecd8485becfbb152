# SPDX-License-Identifier: Apache-2.0
"""Makes vLLM take this CPU for one with AMX.

vLLM then chooses the attention backend AMX_MLA, with chunked prefill and prefix
caching, on any host: its operators run with AVX-512 where tiles are missing. Only in
the engine's own process.
"""

import sys

import torch


def put_on(prefill: str) -> None:
    """Before vLLM makes its configuration.

    Args:
        prefill: "plugin": the plug-in's, as where the library has AMX kernels; "vllm":
            AMX_MLA's own; "peer": vLLM's prefill backend in the common way.
    """
    real = torch.cpu._is_amx_tile_supported

    def is_amx_tile_supported() -> bool:
        # Elsewhere vLLM would run AMX instructions.
        caller = sys._getframe(1).f_code.co_filename
        return caller.endswith("vllm/platforms/cpu.py") or real()

    torch.cpu._is_amx_tile_supported = is_amx_tile_supported
    if prefill == "plugin":
        from mla_prefill.vllm_plugin import registration

        registration.register_attention_backends()
    elif prefill == "peer":
        _prefill_the_common_way()


def _prefill_the_common_way():
    from vllm.model_executor.layers.attention.mla_attention import MLACommonImpl
    from vllm.v1.attention.backends.mla.amx_mla import AMXMLAImpl

    own = AMXMLAImpl.process_weights_after_loading

    def process_weights_after_loading(self, act_dtype):
        own(self, act_dtype)
        # vLLM empties the layer afterwards.
        self.kv_b_proj = _UpProjection(self.kv_b_proj.weight.detach())

    AMXMLAImpl.process_weights_after_loading = process_weights_after_loading
    AMXMLAImpl.forward_mha = MLACommonImpl.forward_mha


class _UpProjection:
    """Called as the layer whose weight it keeps."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, rows):
        return torch.nn.functional.linear(rows, self.weight), None
