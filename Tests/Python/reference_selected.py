# SPDX-License-Identifier: Apache-2.0
"""A layer whose tokens attend to selected keys, in float64; and problems to solve with it."""

from dataclasses import dataclass

import numpy as np
from reference_layer import LayerProblem


@dataclass
class SelectedProblem(LayerProblem):
    """Each token attends to at most ``topk`` of the keys that it sees."""

    topk: int = 20

    def __post_init__(self):
        super().__post_init__()
        self.topk_indices = np.full((self.queries[-1], self.topk + 2), -1, np.int32)
        for token, seen in enumerate(self.seen()):
            count = self.random.integers(0, min(seen, self.topk) + 1)
            chosen = self.random.permutation(seen)[:count]
            places = self.random.permutation(self.topk + 2)[:count]
            self.topk_indices[token, places] = chosen

    def seen(self):
        """How many keys each token sees."""
        return [
            context + i + 1
            for length, context in zip(self.lengths, self.context, strict=True)
            for i in range(length)
        ]

    @property
    def tensors(self):
        return super().tensors | {"topk_indices": self.topk_indices}

    def expected(self):
        width = self.rank + self.rope
        cache = self.kv_cache.reshape(-1, width).astype(np.float64) * self.cache_scale
        new = np.concatenate([self.kv_c_normed, self.k_pe], -1).astype(np.float64)
        out = np.zeros((self.queries[-1], self.heads, self.value))
        lse = np.full((self.heads, self.queries[-1]), -np.inf)
        for request in range(len(self.lengths)):
            first, end = self.queries[request], self.queries[request + 1]
            keys = np.concatenate([cache[self.slots[request]], new[first:end]])
            for token in range(first, end):
                chosen = np.unique(self.topk_indices[token][self.topk_indices[token] >= 0])
                if len(chosen) > 0:
                    row = slice(token, token + 1)
                    one = self._one(self.q[row], keys[chosen], len(chosen) - 1)
                    out[row], lse[:, row] = one
        return out, lse


def with_new_tokens_cached(problem):
    """A forward call's arguments where the cache has the new tokens, too."""
    lengths, context = problem.lengths, problem.context
    block = problem.block_size
    needed = [-(-(a + b) // block) for a, b in zip(context, lengths, strict=True)]
    numbers = iter(problem.random.permutation(sum(needed)).tolist())
    table = [[next(numbers) for _ in range(count)] for count in needed]
    width = problem.rank + problem.rope
    cache = np.full((sum(needed) * block, width), np.nan, problem.kv_cache.dtype)
    old = problem.kv_cache.reshape(-1, width)
    for request, blocks in enumerate(table):
        rows = slice(problem.queries[request], problem.queries[request + 1])
        new = np.concatenate([problem.kv_c_normed[rows], problem.k_pe[rows]], -1)
        tokens = np.concatenate([old[problem.slots[request]], new.astype(cache.dtype)])
        slots = [blocks[t // block] * block + t % block for t in range(len(tokens))]
        cache[slots] = tokens
    return problem.tensors | {
        "kv_c_normed": None,
        "k_pe": None,
        "kv_cache": cache.reshape(-1, block, width),
        "block_table": table,
        "new_tokens_cached": True,
    }
