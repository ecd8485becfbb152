# SPDX-License-Identifier: Apache-2.0
"""A small model of DeepSeek-V2's shape with random weights, as vLLM loads it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LAYERS = 3
HEADS = 16
HIDDEN = 1024
#: Small: vLLM makes an object of each logit that the tests ask for.
VOCABULARY = 1024
_KV_LORA_RANK, _NOPE, _ROPE, _VALUE = 512, 128, 64, 128
_INTERMEDIATE = 2048

_CONFIG = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": _INTERMEDIATE,
    "moe_intermediate_size": 256,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "q_lora_rank": None,
    "kv_lora_rank": _KV_LORA_RANK,
    "qk_nope_head_dim": _NOPE,
    "qk_rope_head_dim": _ROPE,
    "v_head_dim": _VALUE,
    # Every layer is dense: experts have no part in attention.
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": LAYERS,
    "moe_layer_freq": 1,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def write_model(folder: Path, seed: int = 0, scheme: Any = None) -> Path:
    """Weights that keep activations near 1, so that scores differ as a model's do:
    with vLLM's own dummies of 1e-3 attention is an average and any would do.

    Args:
        scheme: of quantized.py, by which kv_b_proj is quantized.
    """
    folder.mkdir(parents=True, exist_ok=True)
    quantized = {"quantization_config": scheme.quantization} if scheme else {}
    (folder / "config.json").write_text(json.dumps(_CONFIG | quantized))
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> torch.Tensor:
        values = torch.randn(rows, columns, generator=generator) * gain / columns**0.5
        return values.to(torch.bfloat16)

    def ones(size: int) -> torch.Tensor:
        return torch.ones(size, dtype=torch.bfloat16)

    def up_projection(prefix: str) -> dict[str, torch.Tensor]:
        weight = matrix(HEADS * (_NOPE + _VALUE), _KV_LORA_RANK)
        named = scheme.tensors(weight.float())[0] if scheme else {"weight": weight}
        return {prefix + name: tensor for name, tensor in named.items()}

    tensors = {
        "model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN, gain=HIDDEN**0.5),
        "model.norm.weight": ones(HIDDEN),
        "lm_head.weight": matrix(VOCABULARY, HIDDEN, gain=4.0),
    }
    for index in range(LAYERS):
        layer = f"model.layers.{index}."
        attention = layer + "self_attn."
        tensors |= {
            layer + "input_layernorm.weight": ones(HIDDEN),
            layer + "post_attention_layernorm.weight": ones(HIDDEN),
            # Sharper scores than a plain Gaussian gives: some keys must matter.
            attention + "q_proj.weight": matrix(HEADS * (_NOPE + _ROPE), HIDDEN, gain=2.0),
            attention + "kv_a_proj_with_mqa.weight": matrix(_KV_LORA_RANK + _ROPE, HIDDEN),
            attention + "kv_a_layernorm.weight": ones(_KV_LORA_RANK),
            **up_projection(attention + "kv_b_proj."),
            attention + "o_proj.weight": matrix(HIDDEN, HEADS * _VALUE, gain=2.0),
            layer + "mlp.gate_proj.weight": matrix(_INTERMEDIATE, HIDDEN),
            layer + "mlp.up_proj.weight": matrix(_INTERMEDIATE, HIDDEN),
            layer + "mlp.down_proj.weight": matrix(HIDDEN, _INTERMEDIATE),
        }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_adapter(folder: Path, rank: int = 8) -> Path:
    """A LoRA of kv_b_proj and o_proj, as large as what it is added to."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "kv_b_proj": (_KV_LORA_RANK, HEADS * (_NOPE + _VALUE)),
        "o_proj": (HEADS * _VALUE, HIDDEN),
    }
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": [*names]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for index in range(LAYERS):
        for name, (columns, rows) in names.items():
            layer = f"base_model.model.model.layers.{index}.self_attn.{name}"
            for part, shape in (("A", (rank, columns)), ("B", (rows, rank))):
                values = torch.randn(*shape, generator=generator) / shape[1] ** 0.5
                tensors[f"{layer}.lora_{part}.weight"] = values.to(torch.bfloat16)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
