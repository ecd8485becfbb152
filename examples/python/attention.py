"""Attention in one call through the Python package: a prompt in two steps, then decoding,
against one whole step; with torch where it is installed, else with numpy.

    pip install ./python
    python examples/python/attention.py

SPDX-License-Identifier: Apache-2.0
"""

import sys
from importlib.util import find_spec

import numpy as np

from mla_prefill import attention, cpu_summary

HEADS, KV_HEADS, DIM, PROMPT, TOKENS = 16, 4, 64, 200, 210


def numbers(random, *shape):
    array = random.standard_normal(shape).astype(np.float32)
    if not find_spec("torch"):
        return array
    import torch

    return torch.from_numpy(array)


def main():
    print(cpu_summary())
    random = np.random.default_rng(0)
    # [batch, heads, tokens, dim], a token's heads side by side: views cost nothing.
    q = numbers(random, 2, TOKENS, HEADS, DIM).swapaxes(1, 2)
    k = numbers(random, 2, TOKENS, KV_HEADS, DIM).swapaxes(1, 2)
    v = numbers(random, 2, TOKENS, KV_HEADS, DIM).swapaxes(1, 2)
    whole, whole_lse = attention(q, k, v, causal="end", return_lse=True)
    worst = 0.0
    # Half of the prompt, the other half on it, then token by token.
    steps = [(0, 100), (100, PROMPT), *((i, i + 1) for i in range(PROMPT, TOKENS))]
    for begin, end in steps:
        out, lse = attention(
            q[:, :, begin:end], k[:, :, :end], v[:, :, :end], causal="end", return_lse=True
        )
        for got, expected in [(out, whole[:, :, begin:end]), (lse, whole_lse[:, :, begin:end])]:
            worst = max(worst, float(abs(got - expected).max()))
    print(f"{type(q).__module__}: {len(steps)} steps against one: off by at most {worst:.1e}")
    return worst < 1e-5


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
