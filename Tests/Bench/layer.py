"""Times the whole MLA prefill layer, from latents and a paged cache to the output.

    python Tests/Bench/layer.py [--rounds N] [--seconds S] [--json FILE]

Contenders, taken in turns within each round, all on the same bf16 numbers and the
same number of threads:

    ours           mla_prefill.MLAPrefillLayer
    torch          up-projection by torch's GEMM, then its fused attention with V padded:
                   context without a mask, new tokens with one, merged by their lse
    vLLM AMX_MLA   what vLLM's attention backend of that name runs: queries absorbed,
                   its extend kernel over the latent cache, outputs projected; without
                   AMX its operators take oneDNN's AVX-512 way, and where vLLM's build
                   for this CPU lacks them it takes no part

Needs torch, vLLM and mla_prefill in one environment: `make test-vllm` makes one.
Speeds count the FLOPs of the up-projection and of causal attention per head.
"""

import argparse
import sys
from pathlib import Path

import torch

import mla_prefill
from sides import (
    HEADS, NOPE, QK, RANK, ROPE, SCALE, V, print_header, print_rows, take_turns,
    use_threads_of_torch, write_json,
)

sys.path.append(str(Path(__file__).parents[1] / "vLLM"))
import amx_operators  # noqa: E402

BLOCK = 16
# New tokens and tokens of context of one request.
CASES = [(512, 0), (1024, 0), (2048, 0), (4096, 0), (512, 3584), (128, 8064), (1, 8192)]


class Problem:
    """One request, whose cache blocks lie in random order."""

    def __init__(self, new, context):
        torch.manual_seed(new + 10000 * context)
        self.new, self.context = new, context
        self.weights = (torch.randn(HEADS * (NOPE + V), RANK) * RANK**-0.5).bfloat16()
        self.q = torch.randn(new, HEADS, QK).bfloat16()
        # The cache holds the new tokens as well: vLLM's operators want them there.
        self.rows = torch.randn(context + new, RANK + ROPE).bfloat16()
        blocks = -(-(context + new) // BLOCK)
        self.table = torch.randperm(blocks + 3)[:blocks].int()
        self.cache = torch.zeros(blocks + 3, BLOCK, RANK + ROPE).bfloat16()
        positions = torch.arange(context + new)
        self.slots = self.table[positions // BLOCK].long() * BLOCK + positions % BLOCK
        self.cache.view(-1, RANK + ROPE)[self.slots] = self.rows
        self.latents = self.rows[context:, :RANK].contiguous()
        self.k_pe = self.rows[context:, RANK:].contiguous()

    @property
    def flops(self):
        keys = self.context + self.new
        pairs = self.new * self.context + self.new * self.new / 2
        return 2 * HEADS * (keys * RANK * (NOPE + V) + pairs * (QK + V))


def ours(p):
    layer = mla_prefill.MLAPrefillLayer(HEADS, SCALE, RANK, NOPE, ROPE, V, p.weights)
    paged = {}
    if p.context:
        paged = {"kv_cache": p.cache, "block_table": p.table.view(1, -1), "context_lens": [p.context]}
    return lambda: layer.forward(p.q, p.latents, p.k_pe, **paged)


def torch_side(p):
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    weights = p.weights.T.contiguous()

    def part(q, rows, causal):
        kv = (rows[:, :RANK] @ weights).view(-1, HEADS, NOPE + V)
        rope = rows[:, None, RANK:].expand(-1, HEADS, -1)
        k = torch.cat([kv[..., :NOPE], rope], dim=-1)
        v = torch.nn.functional.pad(kv[..., NOPE:], (0, QK - V))
        out, lse = attend(q, *(x.transpose(0, 1)[None] for x in (k, v)), 0.0, causal, scale=SCALE)
        return out[0].transpose(0, 1)[..., :V], lse[0].T[..., None]

    def run():
        q = p.q.transpose(0, 1)[None]
        new = torch.cat([p.latents, p.k_pe], dim=-1)
        out, lse = part(q, new, True)
        if not p.context:
            return out
        rows = p.cache.view(-1, RANK + ROPE)[p.slots[:p.context]]
        before, before_lse = part(q, rows, False)
        weight = torch.sigmoid(before_lse - lse)
        return (before * weight + out * (1 - weight)).bfloat16()

    return run


def amx_mla(p):
    from vllm import _custom_ops as ops

    heads = p.weights.view(HEADS, NOPE + V, RANK)
    w_uk = torch.ops._C.convert_weight_packed(heads[:, :NOPE].transpose(1, 2).contiguous())
    w_uv = torch.ops._C.convert_weight_packed(heads[:, NOPE:].contiguous())
    flat = p.cache.view(-1, 1, RANK + ROPE)
    tokens = p.slots.int().view(1, -1)
    lengths = torch.tensor([p.context + p.new])
    new, start = (torch.tensor([n], dtype=torch.int32) for n in (p.new, 0))

    def run():
        absorbed = torch.empty(p.new, HEADS, RANK, dtype=torch.bfloat16)
        ops.bmm_cpu(absorbed.transpose(0, 1), p.q[..., :NOPE].transpose(0, 1), w_uk, True, None)
        q = torch.cat([absorbed, p.q[..., NOPE:]], dim=-1)
        rows = torch.cat([p.latents, p.k_pe], dim=-1).unsqueeze(1)
        latent_out = torch.empty(p.new, HEADS, RANK, dtype=torch.bfloat16)
        ops.cpu_mla_extend(
            q, rows, rows[..., :RANK], latent_out, flat, flat[..., :RANK], tokens,
            torch.zeros(1, dtype=torch.int64), lengths, new, start, p.new, SCALE, 0.0, False, 0,
            None, None, None)
        out = torch.empty(p.new, HEADS, V, dtype=torch.bfloat16)
        ops.bmm_cpu(out.transpose(0, 1), latent_out.transpose(0, 1), w_uv, True, None)
        return out

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    print(f"whole layer: {HEADS} heads of {NOPE}/{ROPE}/{V}, rank {RANK}, bf16, "
          f"{torch.get_num_threads()} threads, seed = new tokens + 10000 * context")
    print_header()
    use_threads_of_torch()
    contenders = {"ours": ours, "torch": torch_side, "vLLM AMX_MLA": amx_mla}
    if missing := amx_operators.missing():
        print(f"without vLLM AMX_MLA: vLLM's build for this CPU has no {missing}")
        del contenders["vLLM AMX_MLA"]
    rows = []
    for new, context in CASES:
        problem = Problem(new, context)
        runs = {name: make(problem) for name, make in contenders.items()}
        case = f"{new} on {context}" if context else f"S={new}"
        measured = take_turns(case, runs, problem.flops, arguments.rounds, arguments.seconds)
        print_rows(measured)
        rows += [{"new_tokens": new, "context": context, **row} for row in measured]
    if arguments.json:
        write_json(arguments.json, layer=rows)


if __name__ == "__main__":
    main()
