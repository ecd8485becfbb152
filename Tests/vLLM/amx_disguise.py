# SPDX-License-Identifier: Apache-2.0
"""Makes vLLM take this CPU for one with AMX, and computes by torch what needs it.

vLLM then chooses the attention backend AMX_MLA, with chunked prefill and prefix
caching, on any host: what is ours in it runs as on an AMX host, but for the
instructions. Only in the engine's own process.
"""

import sys

import torch


def put_on(prefill: str) -> None:
    """Before vLLM makes its configuration.

    Args:
        prefill: "plugin": the plug-in's, as where the library has AMX kernels; "vllm":
            AMX_MLA's own; "peer": vLLM's prefill backend in the common way.
    """
    from vllm import _custom_ops as ops

    real = torch.cpu._is_amx_tile_supported

    def is_amx_tile_supported() -> bool:
        # Elsewhere vLLM would run AMX instructions.
        caller = sys._getframe(1).f_code.co_filename
        return caller.endswith("vllm/platforms/cpu.py") or real()

    torch.cpu._is_amx_tile_supported = is_amx_tile_supported
    torch.ops._C.convert_weight_packed = lambda weight: weight
    ops.bmm_cpu = _bmm
    ops.amx_mla_concat_and_cache = _concat_and_cache
    ops.cpu_mla_decode = _decode
    ops.cpu_mla_extend = _extend
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


def _bmm(out, mat1, mat2, is_vnni, scale=None):
    assert is_vnni and scale is None
    out.copy_(torch.bmm(mat1, mat2.transpose(1, 2)))


def _concat_and_cache(kv_c_normed, k_pe, kv_cache, slot_mapping):
    rows = torch.cat([kv_c_normed, k_pe], dim=-1)
    valid = slot_mapping >= 0
    kv_cache.view(-1, rows.shape[-1])[slot_mapping[valid]] = rows[valid]


def _decode(query, k_buffer, v_buffer, output, _k, _v, _loc, _logits, req_to_token, requests,
            seq_lens, sm_scale, *_rest):
    starts = torch.arange(len(seq_lens))
    _attend(query, k_buffer, v_buffer, output, req_to_token, requests, seq_lens,
            torch.ones_like(starts), starts, sm_scale)


def _extend(query, _k, _v, output, k_buffer, v_buffer, req_to_token, requests, seq_lens,
            extend_seq_lens, extend_start_loc, _longest, sm_scale, *_rest):
    _attend(query, k_buffer, v_buffer, output, req_to_token, requests, seq_lens,
            extend_seq_lens, extend_start_loc, sm_scale)


def _attend(query, k_buffer, v_buffer, output, req_to_token, requests, seq_lens, counts, starts,
            scale):
    """Each request's last `count` tokens over its cached rows, latent queries and values."""
    for request, length, count, start in zip(
        requests.tolist(), seq_lens.tolist(), counts.tolist(), starts.tolist(), strict=True
    ):
        rows = req_to_token[request, :length].long()
        keys, values = k_buffer[rows, 0].float(), v_buffer[rows, 0].float()
        scores = torch.einsum("qhd,kd->hqk", query[start : start + count].float(), keys) * scale
        mask = torch.ones(count, length, dtype=torch.bool).triu(length - count + 1)
        weights = scores.masked_fill_(mask, float("-inf")).softmax(-1)
        output[start : start + count] = torch.einsum("hqk,kd->qhd", weights, values)
