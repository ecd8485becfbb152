# SPDX-License-Identifier: Apache-2.0
"""Attention in float64, one request after the other; and problems to solve with it."""

import threading
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
#: Half a unit in the last place of the output, and of the probabilities where a
#: kernel rounds them to the type of v, relative to sums of |v|.
TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.2e-2}
LSE_TOLERANCE = 2e-4


def attention(q, k, v, queries, keys, scale, causal):
    """(out, lse) of ragged rows; a row without keys gives 0 and -inf."""
    q, k, v = (tensor.astype(np.float64) for tensor in (q, k, v))
    out = np.zeros((q.shape[0], q.shape[1], v.shape[2]))
    lse = np.full((q.shape[1], q.shape[0]), -np.inf)
    for request in range(len(queries) - 1):
        rows = slice(queries[request], queries[request + 1])
        columns = slice(keys[request], keys[request + 1])
        if rows.stop == rows.start or columns.stop == columns.start:
            continue
        scores = np.einsum("ihd,jhd->hij", q[rows], k[columns]) * scale
        if causal:
            scores += np.triu(np.full(scores.shape[1:], -np.inf), 1)
        top = scores.max(-1, keepdims=True)
        weights = np.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        out[rows] = np.einsum("hij,jhd->ihd", weights / total, v[columns])
        lse[:, rows] = (np.log(total) + top)[..., 0]
    return out, lse


@dataclass
class Problem:
    """A batch of random tensors and a backend's arguments for it."""

    lengths: list[int]
    heads: int = 2
    nope: int = 24
    rope: int = 8
    value: int = 16
    dtype: str = "float32"
    context: list[int] | None = None
    seed: int = 0
    q: np.ndarray = field(init=False)
    k: np.ndarray = field(init=False)
    v: np.ndarray = field(init=False)

    def __post_init__(self):
        random = np.random.default_rng(self.seed)
        kind = TYPES[self.dtype]
        self.queries = offsets(self.lengths)
        self.keys = self.queries if self.context is None else offsets(self.context)

        def tensor(rows, width):
            return random.standard_normal((rows, self.heads, width)).astype(kind)

        self.q = tensor(self.queries[-1], self.nope + self.rope)
        self.k = tensor(self.keys[-1], self.nope + self.rope)
        self.v = tensor(self.keys[-1], self.value)

    @property
    def scale(self):
        return (self.nope + self.rope) ** -0.5

    @property
    def arguments(self):
        return {
            "num_heads": self.heads,
            "scale": self.scale,
            "kv_lora_rank": 32,
            "qk_nope_head_dim": self.nope,
            "qk_rope_head_dim": self.rope,
            "v_head_dim": self.value,
        }

    def expected(self):
        return attention(
            self.q, self.k, self.v, self.queries, self.keys, self.scale, self.context is None
        )

    def check(self, out, lse=None):
        """Compares a result with float64."""
        expected_out, expected_lse = self.expected()
        limit = TOLERANCE[self.dtype] * max(1.0, np.abs(self.v.astype(np.float64)).max(initial=0))
        np.testing.assert_allclose(np.asarray(out, np.float64), expected_out, rtol=0, atol=limit)
        if lse is not None:
            assert lse.dtype == np.float32
            np.testing.assert_allclose(lse, expected_lse, rtol=1e-5, atol=LSE_TOLERANCE)


def offsets(lengths):
    return [0, *np.cumsum(lengths, dtype=int).tolist()]


def check_from_many_threads(problem, call):
    """One object's results are the same and right, whoever calls it at a time."""
    results = []

    def work():
        for _ in range(20):
            results.append(call())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80 and all((result == results[0]).all() for result in results)
    problem.check(results[0])
