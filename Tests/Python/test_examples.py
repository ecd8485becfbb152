# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "example", sorted((ROOT / "examples" / "python").glob("*.py")), ids=lambda p: p.stem
)
def test_example(example):
    done = subprocess.run([sys.executable, example], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
