# SPDX-License-Identifier: Apache-2.0
"""Attention problems of any size, and float64 results of some of their rows."""

import numpy as np
from device import Tensor, prefill

#: Relative to the norm, as the CPU's tests have it; of lse, absolute.
OUT_BOUND, LSE_BOUND = {"bf16": 4e-3, "fp16": 1.5e-3}, 2e-4


#: Of the 16 bits of a random number those that stay, and what is added: 1/8 to 2, of either sign.
_RANDOM_BITS = {"bf16": (0x81FF, 0x3E00), "fp16": (0x8FFF, 0x3000)}


def numbers(random, shape, dtype):
    """Quick for hundreds of millions."""
    if dtype == "fp32":
        return random.standard_normal(shape, np.float32)
    kept, added = _RANDOM_BITS[dtype]
    count = int(np.prod(shape))
    bits = random.integers(0, 1 << 64, (count + 3) // 4, np.uint64).view(np.uint16)[:count].reshape(shape)
    bits &= kept
    bits += added
    return bits if dtype == "bf16" else bits.view(np.float16)


def all_finite(values):
    """Of bf16's or fp16's bits."""
    exponent = 0x7F80 if values.dtype == np.uint16 else 0x7C00
    return not ((values.view(np.uint16) & exponent) == exponent).any()


def offsets(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


class Problem:
    """
    Args:
        keys: lengths of the requests' contexts; None: new tokens, each of which sees those
            before it and itself.
    """

    def __init__(self, backend, queries, keys=None, *, dtype="bf16", seed=0, stream=None, **layout):
        random = np.random.default_rng(seed)
        self.backend, self.dtype, self.stream, self.causal = backend, dtype, stream, keys is None
        self.queries = offsets(queries)
        self.keys = self.queries if keys is None else offsets(keys)
        rows, columns, heads = int(self.queries[-1]), int(self.keys[-1]), backend.heads
        self.hosts = {
            "q": numbers(random, (rows, heads, backend.qk), dtype),
            "k": numbers(random, (columns, heads, backend.qk), dtype),
            "v": numbers(random, (columns, heads, backend.value), dtype),
        }
        self.tensors = {
            name: Tensor(dtype, host.shape, stream, **layout).upload(host) for name, host in self.hosts.items()
        }
        self.tensors["out"] = Tensor(dtype, (rows, heads, backend.value), stream, **layout)
        self.tensors["lse"] = Tensor("fp32", (heads, rows), stream)

    def prepare(self):
        self.backend.prepare(self.queries, None if self.causal else self.keys)

    def run(self, stream=None):
        self.backend.run(stream or self.stream, **self.tensors)

    def renew(self, seed):
        """Other numbers in the same memory, and no results."""
        random = np.random.default_rng(seed)
        for name, host in self.hosts.items():
            self.hosts[name] = numbers(random, host.shape, self.dtype)
            self.tensors[name].upload(self.hosts[name])
        self.tensors["out"].memory.clear(self.stream)
        self.tensors["lse"].memory.clear(self.stream)

    def check(self, samples=60):
        """Says what is wrong: of all rows whether they are written, of some the numbers."""
        out, gaps = self.tensors["out"].download(gaps=True)
        lse = self.tensors["lse"].download()
        if gaps.size and not (gaps.view(np.uint8) == 0xFF).all():
            return "wrote between the rows"
        if not all_finite(out):
            return "rows are not written, or not finite"
        random = np.random.default_rng(1)
        difference = norm = worst = 0.0
        for request, row in self._rows(random, samples):
            head = int(random.integers(self.backend.heads))
            expected, expected_lse = self._row(request, row, head)
            difference += ((prefill.as_float(out[row, head]) - expected) ** 2).sum()
            norm += (expected**2).sum()
            got = lse[head, row]
            worst = max(worst, 0.0 if got == expected_lse else abs(float(got) - expected_lse))
        error = (difference / norm) ** 0.5 if norm else difference**0.5
        self.errors = error, worst
        if not error <= OUT_BOUND[self.dtype] or not worst <= LSE_BOUND:
            return f"out is off by {error:.1e}, lse by {worst:.1e}"
        return None

    def _rows(self, random, samples):
        """Requests and rows: the first and the last of some requests, and any."""
        active = np.flatnonzero(np.diff(self.queries))
        if not active.size:
            return
        for request in active[:: max(1, active.size // 8)]:
            yield request, int(self.queries[request])
            yield request, int(self.queries[request + 1]) - 1
        for row in random.integers(0, self.queries[-1], samples):
            yield int(np.searchsorted(self.queries, row, "right")) - 1, int(row)

    def _row(self, request, row, head):
        first, last = int(self.keys[request]), int(self.keys[request + 1])
        if self.causal:
            last = row + 1
        if first == last:
            return np.zeros(self.backend.value), -np.inf
        query, keys, values = (
            prefill.as_float(part).astype(np.float64)
            for part in (self.hosts["q"][row, head], self.hosts["k"][first:last, head], self.hosts["v"][first:last, head])
        )
        scores = keys @ query * self.backend.scale
        weights = np.exp(scores - scores.max())
        return weights @ values / weights.sum(), float(np.log(weights.sum()) + scores.max())
