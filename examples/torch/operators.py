"""torch.ops.mla_prefill: two layers of MLA attention in one graph of torch.compile, saved by
torch.export; and attention that is trained.

    pip install ./python torch
    python examples/torch/operators.py

SPDX-License-Identifier: Apache-2.0
"""

import io

import torch

from mla_prefill import MLAPrefillLayer
from mla_prefill.torch_ops import handle_of

HEADS, NOPE, ROPE, V_DIM, RANK = 8, 64, 32, 64, 256


class MLAAttention(torch.nn.Module):
    """From queries and latents of some requests' tokens to the attention output."""

    def __init__(self):
        super().__init__()
        # Whoever has the handle has no hold of the layer.
        self.layer = MLAPrefillLayer(
            num_heads=HEADS, scale=(NOPE + ROPE) ** -0.5, kv_lora_rank=RANK, qk_nope_head_dim=NOPE,
            qk_rope_head_dim=ROPE, v_head_dim=V_DIM, kv_b_proj=torch.randn(HEADS * (NOPE + V_DIM), RANK) / 16,
        )
        self.register_buffer("handle", handle_of(self.layer), persistent=False)

    def forward(self, q, latents, k_pe, query_start_loc):
        return torch.ops.mla_prefill.layer(
            q, latents, k_pe, self.handle, V_DIM, query_start_loc=query_start_loc
        )


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = torch.nn.ModuleList(MLAAttention() for _ in range(2))
        self.project = torch.nn.Linear(HEADS * V_DIM, HEADS * (NOPE + ROPE), bias=False)

    def forward(self, q, latents, k_pe, query_start_loc):
        for attention in self.attention:
            out = attention(q, latents, k_pe, query_start_loc)
            q = q + self.project(out.flatten(1)).unflatten(1, (HEADS, -1))
        return q


def batch(*lengths):
    tokens = sum(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    tensors = (torch.randn(tokens, *shape) for shape in ((HEADS, NOPE + ROPE), (RANK,), (ROPE,)))
    return *tensors, offsets


def infer():
    model = Model()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, dynamic=True)
        for step in (batch(100, 7), batch(30, 1, 64)):
            error = (compiled(*step) - model(*step)).abs().max()
            print(f"one graph, {len(step[0])} tokens of {len(step[3]) - 1} requests: off by {error:.1e}")
            assert error < 1e-4
        tokens, requests = torch.export.Dim("tokens", max=4096), torch.export.Dim("requests", max=256)
        lengths = {0: tokens}, {0: tokens}, {0: tokens}, {0: requests}
        file = io.BytesIO()
        torch.export.save(torch.export.export(model, batch(100, 7), dynamic_shapes=lengths), file)
        file.seek(0)
        step = batch(5, 80, 11)
        assert torch.equal(torch.export.load(file).module()(*step), model(*step))
        print("exported, saved and loaded: the same")


def train():
    """Grouped heads; a target that attention can reach."""
    q, k, v = (torch.randn(1, heads, 50, 32).requires_grad_() for heads in (8, 2, 2))
    target = torch.randn(1, 2, 50, 32).repeat_interleave(4, 1)
    optimizer = torch.optim.Adam([q, k, v], lr=0.05)
    losses = []
    for _ in range(50):
        out, _ = torch.ops.mla_prefill.attention(q, k, v, causal="start")
        loss = (out - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    print(f"trained: loss from {losses[0]:.2f} to {losses[-1]:.2f}")
    assert losses[-1] < losses[0] / 3


torch.manual_seed(0)
infer()
train()
