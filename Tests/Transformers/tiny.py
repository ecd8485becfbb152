# SPDX-License-Identifier: Apache-2.0
"""Tiny models with random weights, one of each kind that has a kv_b_proj."""

import inspect
from importlib import import_module
from typing import Any

import torch

VOCABULARY = 320

_SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=96,
    intermediate_size=64,
    moe_intermediate_size=32,
    ffn_hidden_size=64,
    expert_ffn_hidden_size=32,
    num_hidden_layers=3,
    num_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    n_routed_experts=4,
    num_experts=4,
    n_shared_experts=1,
    num_shared_experts=1,
    num_experts_per_tok=2,
    num_experts_per_token=2,
    moe_topk=2,
    zero_expert_num=2,
    n_group=2,
    num_expert_group=2,
    topk_group=1,
    q_lora_rank=48,
    kv_lora_rank=64,
    qk_nope_head_dim=32,
    qk_rope_head_dim=16,
    v_head_dim=24,
    linear_head_dim=16,
    linear_num_heads=4,
    index_topk=8,
    # Of few heads none may like a key: scores of 0, and any of these keys.
    index_n_heads=32,
    index_head_dim=32,
    gated_norm_rank=4,
    max_position_embeddings=512,
    model_max_length=512,
    num_nextn_predict_layers=0,
    # Random weights that say something: of those of 0.02 next to nothing is left after a layer.
    initializer_range=0.2,
    embedding_initializer_range=0.2,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=1,
)

#: What single kinds need beside it, or instead.
_SPECIAL: dict[str, dict[str, Any]] = {
    "bailing_hybrid": dict(layer_types=["linear_attention", "full_attention", "full_attention"]),
    "glm5_next": dict(
        index_kpool=4,
        qk_rope_head_dim=0,
        layer_types=["linear_attention"] + ["indexed_attention"] * 2,
    ),
    "hy_v4_vl": dict(
        rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[3, 3, 2])
    ),
    "longcat_flash": dict(head_dim=16, qk_head_dim=48),
    "kimi_linear": dict(layer_types=["linear_attention", "full_attention", "full_attention"]),
}

#: The class of a model's configuration and of the model, where they are not the usual.
TEXT_MODELS = ("dots3_note", "glm5_next", "hy_v4_vl", "mistral_large4")


def build(kind: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A model by its folder's name in transformers, in evaluation mode."""
    configurations = import_module(f"transformers.models.{kind}.configuration_{kind}")
    models = import_module(f"transformers.models.{kind}.modeling_{kind}")
    ending = "Text" if kind in TEXT_MODELS else ""
    make = _member(configurations, f"{ending}Config")
    known = inspect.signature(make).parameters
    sizes = {**_SIZES, **_SPECIAL.get(kind, {}), **changes}
    config = make(**{name: value for name, value in sizes.items() if name in known})
    torch.manual_seed(0)
    model = _member(models, "TextModel" if ending else "ForCausalLM")(config)
    # A padding token is 0 otherwise, and to one that is generated an indexer's keys are all equal.
    embedded = model.get_input_embeddings().weight.data
    embedded[sizes["pad_token_id"]] = embedded[-1].neg()
    return model.to(dtype).eval()


def _member(module: Any, ending: str) -> Any:
    return next(
        value
        for name, value in vars(module).items()
        if name.endswith(ending) and value.__module__ == module.__name__
    )
