# SPDX-License-Identifier: Apache-2.0
"""Speed in models of transformers, against their own ways.

    python Tests/Transformers/speed.py [--rounds N]

Contenders take turns, after a first round that warms up, on the same bf16 numbers and on
torch's threads. Times are the process's processor time, medians of the rounds; ratios are
medians of each round's. Layers and models have random weights and DeepSeek's head
dimensions: 16 heads of 128/64/128, latents of 512.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface, DeepseekV3Config, DeepseekV3ForCausalLM, DynamicCache
from transformers.masking_utils import AttentionMaskInterface

from mla_prefill import cpu_summary
from mla_prefill.transformers import LatentCache, disable, enable, register

HEADS, QK, V = 16, 192, 128
#: More than a processor's caches hold, as a model's.
DECODING_LAYERS = 12
SIZES = dict(
    vocab_size=512,
    hidden_size=2048,
    intermediate_size=4096,
    num_hidden_layers=2,
    first_k_dense_replace=2,
    num_attention_heads=HEADS,
    num_key_value_heads=HEADS,
    q_lora_rank=None,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=V,
    max_position_embeddings=16384,
)

Runs = dict[str, Callable[[], Any]]


def processor_time(run: Callable[[], Any]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def show(case: str, runs: Runs, rounds: int) -> None:
    """A line: ours, theirs, how many times ours theirs takes, at least and at most."""
    rows = [{name: processor_time(run) for name, run in runs.items()} for _ in range(rounds + 1)][
        1:
    ]
    ours, theirs = (
        statistics.median(row[name] for row in rows) * 1e3 for name in ("ours", "theirs")
    )
    ratios = sorted(row["theirs"] / row["ours"] for row in rows)
    print(
        f"{case:44}{ours:10.2f}{theirs:10.2f}{statistics.median(ratios):8.1f}"
        f"  ({ratios[0]:.1f} to {ratios[-1]:.1f})",
        flush=True,
    )


def attention(batch: int, queries: int, keys: int, padded: bool = False) -> Runs:
    """The attention functions alone, on heads as models hand them over."""
    q = torch.randn(batch, queries, HEADS, QK).bfloat16().transpose(1, 2)
    k = torch.randn(batch, HEADS, keys, QK).bfloat16()
    v = torch.randn(batch, keys, HEADS, 2 * V).bfloat16().transpose(1, 2)[..., V:]
    padding = torch.ones(batch, keys, dtype=torch.bool)
    if padded:
        for row in range(batch):
            padding[row, : 40 * row] = False
    module = torch.nn.Module()

    def run(implementation: str) -> Callable[[], Any]:
        mask = AttentionMaskInterface()[implementation](
            batch, queries, keys, q_offset=keys - queries, attention_mask=padding
        )
        attend = AttentionInterface()[implementation]
        return lambda: attend(module, q, k, v, mask, scaling=QK**-0.5)

    return {"ours": run("mla_prefill"), "theirs": run("sdpa")}


def decoding(model: Any, switched: Any, context: int, whole: bool) -> Runs:
    """One token in `DECODING_LAYERS` layers: their attention modules, or what lies between
    the projections of these."""
    hidden = torch.randn(1, context + 1, SIZES["hidden_size"]).bfloat16()
    positions = model.model.rotary_emb(hidden, torch.arange(context + 1)[None])
    last = [each[:, -1:] for each in positions]
    query = torch.randn(1, HEADS, 1, QK).bfloat16()

    def run(kind: Any, cache: Any) -> Callable[[], Any]:
        # Weights made in inference mode are multiplied another way, by copies.
        with torch.inference_mode(False):
            attention = kind.model.layers[0].self_attn
            modules = [copy.deepcopy(attention) for _ in range(DECODING_LAYERS)]
        before = [each[:, :-1] for each in positions]
        for index, module in enumerate(modules):
            module.layer_idx = index
            module(hidden[:, :-1], position_embeddings=before, attention_mask=None, cache=cache)
        attend = AttentionInterface()[kind.config._attn_implementation]

        def step() -> None:
            for module in modules:
                module(hidden[:, -1:], position_embeddings=last, attention_mask=None, cache=cache)
            cache.crop(-1)

        def inner() -> None:
            for module, layer in zip(modules, cache.layers, strict=True):
                key, value = module.expand_kv(layer.keys, layer.values)
                attend(module, query, key, value, None, scaling=module.scaling)

        return step if whole else inner

    config = copy.deepcopy(model.config)
    config.num_hidden_layers = DECODING_LAYERS
    return {
        "ours": run(switched, LatentCache(config)),
        "theirs": run(model, DynamicCache(config=config)),
    }


def prefill(model: Any, switched: Any, tokens: int) -> Runs:
    ids = torch.randint(0, SIZES["vocab_size"], (1, tokens))
    return {
        "ours": lambda: switched.model(ids, cache=LatentCache(switched.config)),
        "theirs": lambda: model.model(ids, cache=DynamicCache(config=model.config)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    register()
    torch.manual_seed(0)
    models = [DeepseekV3ForCausalLM(DeepseekV3Config(**SIZES)).bfloat16().eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    model, switched = models
    disable(model)
    enable(switched)
    print(cpu_summary())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds")
    print(f"{'processor time in ms':44}{'ours':>10}{'theirs':>10}{'ratio':>8}")
    with torch.inference_mode():
        for tokens in (512, 1024, 2048, 4096):
            show(f"attention, {tokens} tokens", attention(1, tokens, tokens), rounds)
        show("attention, padded batch of 8 x 512", attention(8, 512, 512, True), rounds)
        for context in (1024, 4096):
            show(f"attention, 1 token on {context}", attention(1, 1, context), rounds)
        for context in (1024, 4096):
            runs = decoding(model, switched, context, whole=False)
            show(f"latents to output, {DECODING_LAYERS} x 1 token on {context}", runs, rounds)
            runs = decoding(model, switched, context, whole=True)
            show(f"attention module, {DECODING_LAYERS} x 1 token on {context}", runs, rounds)
        for tokens in (128, 512, 2048, 4096):
            show(f"model of 2 layers, {tokens} tokens", prefill(model, switched, tokens), rounds)


if __name__ == "__main__":
    main()
