# SPDX-License-Identifier: Apache-2.0
from concurrent.futures import ThreadPoolExecutor

import torch
from tiny import build

from mla_prefill.transformers import LatentCache, enable


def test_many_threads_call_one_model(prompts):
    """The first calls of all, which pack the weights, and steps on caches of their own."""
    model = build("deepseek_v3")
    ids = [prompts(2, 5 + thread) for thread in range(6)]
    expected = [model(each).logits for each in ids]
    enable(model)

    def run(each):
        with torch.inference_mode():
            cache = LatentCache(model.config)
            return torch.cat([model(part, cache=cache).logits for part in each.split(3, 1)], 1)

    for _ in range(3):
        for module in model.modules():
            if hasattr(module, "kv_b_proj"):
                module.kv_b_proj.weight.mul_(1)
        with ThreadPoolExecutor(6) as threads:
            for found, wanted in zip(threads.map(run, ids), expected, strict=True):
                assert (found - wanted).abs().max() < 1e-4
