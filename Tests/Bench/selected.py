"""Times a layer's attention to selected keys against torch's gathering and products of them.

    python Tests/Bench/selected.py [--context N,N] [--heads N,N] [--new N] [--topk N] [--rounds N]

Contenders, taken in turns on the same bf16 numbers and the same number of threads:

    ours    mla_prefill.MLAPrefillLayer with topk_indices
    torch   queries taken to the latents, the selected rows of the cache gathered for a few
            tokens at a time, two batched products around a softmax, results taken to values

Needs torch and mla_prefill in one environment. Prints median milliseconds a token and how far
the results are apart.
"""

import argparse

import torch

import mla_prefill
from sides import median_seconds, numbers, relative_error

RANK, ROPE, NOPE, V = 512, 64, 128, 128
SCALE = (NOPE + ROPE) ** -0.5
TOKENS_AT_ONCE = 8


class Problem:
    """New tokens of one request, which the cache holds, too; each selects its own keys."""

    def __init__(self, heads, new, context, topk):
        torch.manual_seed(1)
        self.heads, self.new, self.context = heads, new, context
        self.weights = (torch.randn(heads * (NOPE + V), RANK) * RANK**-0.5).bfloat16()
        self.q = torch.randn(new, heads, NOPE + ROPE).bfloat16()
        self.cache = torch.randn(context + new, RANK + ROPE).bfloat16()
        self.indices = torch.stack(
            [torch.randperm(context + i + 1)[:topk].sort().values for i in range(new)]
        ).int()
        self.layer = mla_prefill.MLAPrefillLayer(
            heads, SCALE, RANK, NOPE, ROPE, V, self.weights
        )

    def ours(self):
        return self.layer.forward(
            self.q, None, None, self.cache.unsqueeze(0), context_lens=[self.context],
            topk_indices=self.indices, new_tokens_cached=True,
        )  # fmt: skip

    def torch(self):
        weights = self.weights.view(self.heads, NOPE + V, RANK)
        latent = torch.bmm(self.q[..., :NOPE].transpose(0, 1), weights[:, :NOPE])
        queries = torch.cat([latent.transpose(0, 1), self.q[..., NOPE:]], -1)
        parts = []
        for first in range(0, self.new, TOKENS_AT_ONCE):
            some = slice(first, first + TOKENS_AT_ONCE)
            rows = self.cache[self.indices[some].long()]
            scores = torch.bmm(queries[some], rows.transpose(1, 2)).float() * SCALE
            parts.append(torch.bmm(scores.softmax(-1).bfloat16(), rows[..., :RANK]))
        results = torch.cat(parts).transpose(0, 1)
        return torch.bmm(results, weights[:, NOPE:].transpose(1, 2)).transpose(0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=numbers, default=[32768, 131072])
    parser.add_argument("--heads", type=numbers, default=[16, 128])
    parser.add_argument("--new", type=int, default=512)
    parser.add_argument("--topk", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    mla_prefill.set_num_threads(torch.get_num_threads())
    print(f"{mla_prefill.cpu_summary()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for heads in arguments.heads:
        for context in arguments.context:
            problem = Problem(heads, arguments.new, context, arguments.topk)
            # What is first read or written is not there yet.
            out, other = problem.ours(), problem.torch()
            times = median_seconds([problem.ours, problem.torch], arguments.rounds)
            ours, theirs = (time / arguments.new * 1e3 for time in times)
            apart = relative_error(out, other)
            print(
                f"{heads} heads, {context} context, {arguments.new} new: ours {ours:.3f}, "
                f"torch {theirs:.3f}, {theirs / ours:.2f} times; {apart:.1e} apart"
            )


if __name__ == "__main__":
    main()
