# SPDX-License-Identifier: Apache-2.0
"""The whole MLA prefill layer in float64; and problems to solve with it."""

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
from reference import LSE_TOLERANCE, TYPES, attention, offsets

from mla_prefill import concat_and_cache_mla

FP8 = ml_dtypes.float8_e4m3fn
CACHE_TYPES = {**TYPES, "float8_e4m3fn": FP8}
#: Relative L2 over a whole result: roundings of projected keys and values, and of the
#: probabilities.
TOLERANCE = {"float32": 5e-5, "float16": 1.5e-3, "bfloat16": 7e-3}
#: Of lse: keys are rounded after projection.
KEY_TOLERANCE = {"float32": LSE_TOLERANCE, "float16": 2e-3, "bfloat16": 1e-2}


@dataclass
class LayerProblem:
    """A batch of random latents, of which each request's first lie in a paged cache."""

    lengths: list[int]
    context: list[int]
    heads: int = 2
    rank: int = 40
    nope: int = 24
    rope: int = 8
    value: int = 16
    block_size: int = 8
    dtype: str = "float32"
    cache_dtype: str | None = None
    cache_scale: float = 1.0
    seed: int = 0
    q: np.ndarray = field(init=False)

    def __post_init__(self):
        self.random = np.random.default_rng(self.seed)
        self.queries = offsets(self.lengths)
        self.cache_dtype = self.cache_dtype or self.dtype
        self.q = self._normal(self.queries[-1], self.heads, self.nope + self.rope)
        self.kv_c_normed = self._normal(self.queries[-1], self.rank)
        self.k_pe = self._normal(self.queries[-1], self.rope)
        weights = self._normal(self.heads * (self.nope + self.value), self.rank)
        self.kv_b_proj = weights * np.asarray(self.rank**-0.5, weights.dtype)
        self._fill_cache()

    def _normal(self, *shape):
        return self.random.standard_normal(shape).astype(TYPES[self.dtype])

    def _fill_cache(self):
        """Blocks of requests lie in no order; what nobody owns is NaN."""
        blocks = [-(-rows // self.block_size) for rows in self.context]
        numbers = iter(self.random.permutation(sum(blocks) + 2).tolist())
        kind = CACHE_TYPES[self.cache_dtype]
        width = self.rank + self.rope
        self.kv_cache = np.full((sum(blocks) + 2, self.block_size, width), np.nan, kind)
        self.block_table = [[next(numbers) for _ in range(count)] for count in blocks]
        self.cached = [self._normal(rows, width) for rows in self.context]
        self.slots = [
            [
                self.block_table[request][token // self.block_size] * self.block_size
                + token % self.block_size
                for token in range(rows)
            ]
            for request, rows in enumerate(self.context)
        ]
        for rows, slots in zip(self.cached, self.slots, strict=True):
            scaled = np.clip(rows.astype(np.float32) / np.float32(self.cache_scale), -448, 448)
            stored = scaled if self.cache_dtype == "float8_e4m3fn" else rows
            self.kv_cache.reshape(-1, width)[slots] = stored.astype(kind)

    @property
    def scale(self):
        return (self.nope + self.rope) ** -0.5

    @property
    def dimensions(self):
        return {
            "num_heads": self.heads,
            "scale": self.scale,
            "kv_lora_rank": self.rank,
            "qk_nope_head_dim": self.nope,
            "qk_rope_head_dim": self.rope,
            "v_head_dim": self.value,
        }

    @property
    def tensors(self):
        """A forward call's arguments."""
        return {
            "q": self.q,
            "kv_c_normed": self.kv_c_normed,
            "k_pe": self.k_pe,
            "kv_cache": self.kv_cache,
            "block_table": self.block_table,
            "query_start_loc": self.queries,
            "context_lens": self.context,
        }

    def expected(self):
        """(out, lse) from what the cache holds."""
        width = self.rank + self.rope
        cache = self.kv_cache.reshape(-1, width).astype(np.float64) * self.cache_scale
        new = np.concatenate([self.kv_c_normed, self.k_pe], -1).astype(np.float64)
        out = np.zeros((self.queries[-1], self.heads, self.value))
        lse = np.full((self.heads, self.queries[-1]), -np.inf)
        for request, context in enumerate(self.context):
            rows = slice(self.queries[request], self.queries[request + 1])
            keys = np.concatenate([cache[self.slots[request]], new[rows]])
            out[rows], lse[:, rows] = self._one(self.q[rows], keys, context)
        return out, lse

    def _one(self, q, rows, context):
        projected = rows[:, : self.rank] @ self.kv_b_proj.astype(np.float64).T
        kv = projected.reshape(len(rows), self.heads, self.nope + self.value)
        rope = np.repeat(rows[:, None, self.rank :], self.heads, 1)
        k, v = np.concatenate([kv[..., : self.nope], rope], -1), kv[..., self.nope :]
        # Queries of the context's tokens do not matter: the new ones come last.
        padded = np.concatenate([np.zeros((context, *q.shape[1:])), q])
        ends = [0, len(rows)]
        out, lse = attention(padded, k, v, ends, ends, self.scale, causal=True)
        return out[context:], lse[:, context:]

    def check(self, out, lse=None):
        """Compares a result with float64."""
        expected, expected_lse = self.expected()
        assert relative(out, expected) <= TOLERANCE[self.dtype]
        if lse is not None:
            assert lse.dtype == np.float32
            np.testing.assert_allclose(lse, expected_lse, rtol=0, atol=KEY_TOLERANCE[self.dtype])


def relative(out, expected):
    """L2 of the difference, relative to the expected."""
    difference = np.linalg.norm(np.asarray(out, np.float64) - expected)
    return difference / max(np.linalg.norm(expected), 1e-30)


def stored_as_fp8_ds_mla(problem):
    """The cache of a problem of rank 512 and rope 64 in that format; the problem's own has what
    is in it."""
    cache = np.zeros((len(problem.kv_cache), problem.block_size, 656), np.uint8)
    for rows, slots in zip(problem.cached, problem.slots, strict=True):
        concat_and_cache_mla(rows[:, :512], rows[:, 512:], cache, slots, cache_format="fp8_ds_mla")
    tokens = cache.reshape(-1, 656)
    latents = tokens[:, :512].copy().view(FP8).astype(np.float32)
    scales = tokens[:, 512:528].copy().view(np.float32).repeat(128, 1)
    k_pe = tokens[:, 528:].copy().view(ml_dtypes.bfloat16).astype(np.float32)
    problem.kv_cache = np.concatenate([latents * scales, k_pe], 1)
    return cache


def outputs(problem, dtype=np.float32):
    """Tensors to write into, with something to find again in them."""
    return {
        "out": np.full((problem.queries[-1], problem.heads, problem.value), 7, dtype),
        "lse": np.full((problem.heads, problem.queries[-1]), 7, np.float32),
    }
