# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill bench`` beside torch."""

import json
import subprocess
import sys

import pytest
import torch

from mla_prefill.cli.bench_sides import LibrarySide, Prompt, TorchSide
from mla_prefill.cli.model import Model


def test_bench_beside_torch():
    flags = ["--lengths", "32", "--seconds", "1"]
    command = [sys.executable, "-m", "mla_prefill", "bench", *flags]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print(text)
    assert f"torch {torch.__version__}" in text and text.split()[-1] != "-"
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["torch"] == str(torch.__version__)
    assert found["lengths"][0]["torch"]["seconds"] > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_sides_compute_the_same(dtype):
    model = Model(dtype, num_heads=3)
    prompt = Prompt(model, 50)
    LibrarySide().runs_of(prompt)()
    out = torch.from_dlpack(prompt.out).float()
    expected = TorchSide(1).runs_of(prompt)()[0].transpose(0, 1)[..., : model.v_head_dim].float()
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-2 if dtype == "bfloat16" else 1e-4)
