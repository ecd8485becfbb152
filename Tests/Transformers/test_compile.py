# SPDX-License-Identifier: Apache-2.0
"""torch.compile of models: attention breaks its graph and runs as it is."""

import pytest
import torch
from test_register import llama
from tiny import build

from mla_prefill.transformers import enable, register

ARCHITECTURES = {"sparse": "glm_moe_dsa"}


@pytest.mark.parametrize("kind", ["llama", "deepseek_v3", "switched", "sparse"])
def test_compiled_models(kind, prompts):
    register()
    model = llama() if kind == "llama" else build(ARCHITECTURES.get(kind, "deepseek_v3"))
    ids = prompts(2, 12)
    expected = model(ids).logits
    if kind in ("switched", "sparse"):
        enable(model)
    else:
        model.set_attn_implementation("mla_prefill")
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        assert (compiled(ids, use_cache=False).logits - expected).abs().max() < 1e-4
