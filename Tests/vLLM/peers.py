# SPDX-License-Identifier: Apache-2.0
"""What the plug-in is compared with, counted and timed as it counts itself."""

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
    assert not return_softmax_lse
    rows = []
    for begin, end in zip(q_cu_seq_lens[:-1].tolist(), q_cu_seq_lens[1:].tolist(), strict=True):
        query, key, value = (
            tensor[begin:end].transpose(0, 1).unsqueeze(0) for tensor in (q, k, v)
        )
        # torch fuses only where values are as wide as keys.
        padded = torch.nn.functional.pad(value, (0, key.shape[-1] - value.shape[-1]))
        result = torch.nn.functional.scaled_dot_product_attention(
            query, key, padded, is_causal=causal, scale=self.scale
        )
        rows.append(result[0].transpose(0, 1)[..., : value.shape[-1]])
    return torch.cat(rows)
