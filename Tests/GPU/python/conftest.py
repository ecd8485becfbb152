# SPDX-License-Identifier: Apache-2.0
"""Tests on the machine that Tests/GPU/run.sh puts into LD_LIBRARY_PATH. Arrays must be gone
when a test ends."""

import gc
import sys
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def cupy(monkeypatch):
    """A library of that name: its arrays, the current stream of device 1, which devices were
    asked for theirs."""
    import cuda_array
    import cuda_driver

    with cuda_driver.device(1):
        stream = cuda_driver.stream()
    asked = []

    def current(device):
        asked.append(device)
        return SimpleNamespace(ptr=stream)

    library = SimpleNamespace(ndarray=cuda_array.CuPyArray, stream=stream, asked=asked)
    library.cuda = SimpleNamespace(get_current_stream=current)
    monkeypatch.setitem(sys.modules, "cupy", library)
    return library
