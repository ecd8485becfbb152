# SPDX-License-Identifier: Apache-2.0
"""Tests on the machine that Tests/GPU/run.sh puts into LD_LIBRARY_PATH. Arrays must be gone
when a test ends."""

import gc
import sys
from pathlib import Path

import pytest

# Attention in float64.
sys.path.append(str(Path(__file__).parents[2] / "Python"))


@pytest.fixture(autouse=True)
def nothing_is_kept():
    import cuda_array

    gc.collect()
    before = cuda_array.exported()
    yield
    gc.collect()
    assert cuda_array.exported() == before
