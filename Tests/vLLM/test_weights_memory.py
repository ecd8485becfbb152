# SPDX-License-Identifier: Apache-2.0
"""What a layer's packed weights take, with DeepSeek-V3's dimensions."""

import os
import subprocess
import sys

import pytest

#: Prints bytes a layer, and of how many bytes each number of bf16 is.
MEASURED = """
import gc, sys
import torch
from mla_prefill import MLAPrefillLayer, host

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096

weights = torch.randn(128 * 256, 512).bfloat16()
before = resident()
layers = [
    MLAPrefillLayer(128, 0.07, 512, 128, 64, 128, weights, algorithm=sys.argv[1]) for _ in range(4)
]
print((resident() - before) // len(layers))
print(2 if host.cpu_features()["bf16_isa"] in ("amx", "avx512_bf16") else 4)
"""
NUMBERS = 128 * 256 * 512


@pytest.mark.parametrize("isa", ["avx2", "avx512", "amx"])
@pytest.mark.parametrize("algorithm, times", [("up_projected", 1), ("auto", 1.5)])
def test_packed_weights(isa, algorithm, times):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, algorithm],
        env={**os.environ, "MLA_MAX_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    measured, bytes_each = map(int, done.stdout.split())
    print(f"\n{isa}, {algorithm}: {measured / 1e6:.1f} MB")
    assert measured == pytest.approx(times * bytes_each * NUMBERS, rel=0.08)
