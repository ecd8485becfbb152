# SPDX-License-Identifier: Apache-2.0
"""One of vLLM's attention implementations without an engine, and a step for it."""

from types import SimpleNamespace

import torch
from vllm.utils.torch_utils import set_default_torch_dtype

HEADS, RANK, NOPE, ROPE, VALUE = 4, 512, 128, 64, 128
ROWS = HEADS * (NOPE + VALUE)
SIZES = {
    "num_heads": HEADS,
    "scale": (NOPE + ROPE) ** -0.5,
    "kv_lora_rank": RANK,
    "qk_nope_head_dim": NOPE,
    "qk_rope_head_dim": ROPE,
    "v_head_dim": VALUE,
}
QUERIES = [0, 70, 103]


class UpProjection:
    """As much of vLLM's linear layer as its attention asks for."""

    def __init__(self):
        self.weight = torch.randn(ROWS, RANK).bfloat16() / RANK**0.5
        self.quant_method = None

    def __call__(self, rows):
        return torch.nn.functional.linear(rows, self.weight), None


def implementation(kind, kv_b_proj):
    made = kind(
        **{name: SIZES[name] for name in ("num_heads", "scale", "kv_lora_rank", "v_head_dim")},
        head_size=RANK + ROPE,
        num_kv_heads=1,
        alibi_slopes=None,
        sliding_window=None,
        kv_cache_dtype="auto",
        logits_soft_cap=None,
        attn_type="decoder",
        kv_sharing_target_layer_name=None,
        q_lora_rank=None,
        qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE,
        qk_head_dim=NOPE + ROPE,
        kv_b_proj=kv_b_proj,
    )
    # vLLM loads a model so.
    with set_default_torch_dtype(torch.bfloat16):
        made.process_weights_after_loading(torch.bfloat16)
    return made


def metadata(backend, **changed):
    fields = {
        "query_start_loc": torch.tensor(QUERIES, dtype=torch.int32),
        "max_query_len": 70,
        "block_table": torch.zeros(2, 9, dtype=torch.int32),
        "chunked_context": None,
        "q_data_type": torch.bfloat16,
        "prefill_backend": backend(**SIZES, vllm_config=None),
        **changed,
    }
    prefill = SimpleNamespace(**fields)
    prefill.prefill_backend.prepare_metadata(prefill)
    return SimpleNamespace(prefill=prefill)


def arguments():
    generator = torch.Generator().manual_seed(0)

    def rows(*shape):
        return torch.randn(QUERIES[-1], *shape, generator=generator).bfloat16()

    # As vLLM splits them off: rows of wider tensors, and an output of rows after others'.
    latents = rows(RANK + ROPE)
    output = torch.full((7 + QUERIES[-1], HEADS * VALUE), 7.0, dtype=torch.bfloat16)
    return {
        "q": rows(HEADS, NOPE + ROPE),
        "kv_c_normed": latents[:, :RANK],
        "k_pe": latents[:, RANK:].unsqueeze(1),
        "kv_c_and_k_pe_cache": torch.zeros(3, 16, RANK + ROPE, dtype=torch.bfloat16),
        "k_scale": torch.ones(()),
        "output": output[7:],
    }
