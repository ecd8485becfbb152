# SPDX-License-Identifier: Apache-2.0
"""What the plug-in is compared with, counted and timed as it counts itself."""

from itertools import pairwise

import torch
from mla_prefill.vllm_plugin.usage import counted


def count_other_prefill(torch_attention: bool) -> None:
    """Counts vLLM's own CPU prefill; computes it by torch's fused attention if so told."""
    from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

    if torch_attention:
        CPUSDPAMLAPrefillBackend._ragged_sdpa = _ragged_sdpa
    own = CPUSDPAMLAPrefillBackend.run_prefill_new_tokens

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        with counted(new_tokens_calls=1, new_tokens=q.shape[0]):
            return own(self, q, k, v, return_softmax_lse, out, output_scale)

    CPUSDPAMLAPrefillBackend.run_prefill_new_tokens = run_prefill_new_tokens


def _ragged_sdpa(self, q, k, v, q_cu_seq_lens, kv_cu_seq_lens, causal, return_softmax_lse):
    outputs, sums = [], []
    requests = (rows.tolist() for rows in (q_cu_seq_lens, kv_cu_seq_lens))
    for (begin, end), (first, last) in zip(*map(pairwise, requests), strict=True):
        query, key, value = (
            tensor.transpose(0, 1).unsqueeze(0)
            for tensor in (q[begin:end], k[first:last], v[first:last])
        )
        # torch fuses only where values are as wide as keys; what is behind its function tells
        # the sums of exponentials, too.
        padded = torch.nn.functional.pad(value, (0, key.shape[-1] - value.shape[-1]))
        result, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, padded, is_causal=causal, scale=self.scale
        )
        outputs.append(result[0].transpose(0, 1)[..., : value.shape[-1]])
        sums.append(lse[0])
    output = torch.cat(outputs)
    return (output, torch.cat(sums, dim=1)) if return_softmax_lse else output
