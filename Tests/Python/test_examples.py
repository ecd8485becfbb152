# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def each_example(folder):
    """A parameter of a test."""
    examples = sorted((ROOT / "examples" / folder).glob("*.py"))
    assert examples
    return pytest.mark.parametrize("example", examples, ids=lambda path: path.stem)


def runs(example):
    done = subprocess.run([sys.executable, example], cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    return done.returncode == 0


@each_example("python")
def test_example(example):
    assert runs(example)
