"""Times the selection of keys for decoded tokens against vLLM's own CPU operator for it.

    python Tests/vLLM/indexer_speed.py [--context N,N] [--tokens N,N] [--heads N] [--topk N] [--rounds N]

Contenders, taken in turns on the same paged fp8 cache and the same number of threads:

    ours    mla_prefill.indexer.select
    vllm    fp8_paged_mqa_logits_cpu, which scores all keys, then torch.topk

A token is a request, as where vLLM calls the operator. Prints median milliseconds, and how many of
the keys selected are the same.
"""

import argparse
import importlib.util
import pathlib
import sys

import torch

import mla_prefill
from mla_prefill import indexer

sys.path.append(str(pathlib.Path(__file__).parents[1] / "Bench"))
from sides import median_seconds, numbers  # noqa: E402

HEAD_DIM, BLOCK_SIZE = 128, 64
OPERATORS = torch.ops._C


def load_operators():
    """vLLM's for hosts with AVX-512 and AMX, which it does not load where AMX lacks; these need AVX-512."""
    package = pathlib.Path(importlib.util.find_spec("vllm").origin).parent
    if "avx512_bf16" not in pathlib.Path("/proc/cpuinfo").read_text():
        sys.exit("vLLM's operators need AVX512_BF16, which this host lacks")
    torch.ops.load_library(package / "_C.abi3.so")
    if not hasattr(OPERATORS, "fp8_paged_mqa_logits_cpu"):
        sys.exit("this vLLM has no fp8_paged_mqa_logits_cpu")


class Problem:
    """Tokens of one request each, all with as many keys."""

    def __init__(self, heads, tokens, keys, topk):
        torch.manual_seed(1)
        self.tokens, self.keys, self.topk = tokens, keys, topk
        blocks = keys // BLOCK_SIZE
        numbers = torch.randn(blocks, BLOCK_SIZE * HEAD_DIM).to(torch.float8_e4m3fn)
        scales = torch.rand(blocks, BLOCK_SIZE) + 0.5
        self.cache = torch.cat([numbers.view(torch.uint8), scales.view(torch.uint8)], 1)
        self.q = torch.randn(tokens, heads, HEAD_DIM).to(torch.float8_e4m3fn)
        self.weights = torch.randn(tokens, heads)
        self.block_table = torch.stack([torch.randperm(blocks) for _ in range(tokens)]).int()

    def ours(self):
        return indexer.select(
            self.q, self.weights, self.cache.view(-1, BLOCK_SIZE, HEAD_DIM + 4), self.block_table,
            list(range(self.tokens + 1)), [self.keys - 1] * self.tokens,
            topk=self.topk, format="fp8_block",
        )  # fmt: skip

    def vllm(self):
        lengths = torch.full((self.tokens,), self.keys, dtype=torch.int32)
        logits = OPERATORS.fp8_paged_mqa_logits_cpu(
            self.q, self.cache, self.weights, lengths, self.block_table, BLOCK_SIZE, self.keys
        )
        return logits.topk(self.topk).indices


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=numbers, default=[32768, 131072])
    parser.add_argument("--tokens", type=numbers, default=[1, 16])
    parser.add_argument("--heads", type=int, default=64)
    parser.add_argument("--topk", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    load_operators()
    mla_prefill.set_num_threads(torch.get_num_threads())
    print(f"{mla_prefill.cpu_summary()}, {torch.get_num_threads()} threads")
    for context in arguments.context:
        for tokens in arguments.tokens:
            problem = Problem(arguments.heads, tokens, context, arguments.topk)
            # What is first read or written is not there yet.
            selected, others = problem.ours(), problem.vllm()
            same = sum(
                len(set(mine.tolist()) & set(other.tolist())) for mine, other in zip(selected, others)
            ) / selected.numel()
            times = median_seconds([problem.ours, problem.vllm], arguments.rounds)
            ours, theirs = (time * 1e3 for time in times)
            print(
                f"{arguments.heads} heads, {tokens} tokens, {context} keys: ours {ours:.1f} ms, "
                f"vllm {theirs:.1f} ms, {theirs / ours:.1f} times; {same:.4f} of the keys are the same"
            )


if __name__ == "__main__":
    main()
