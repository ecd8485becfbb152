# SPDX-License-Identifier: Apache-2.0
"""Memory that the extension's own code cannot have is a MemoryError."""

import os
import subprocess
import sys
from pathlib import Path

from mla_prefill import _core

HERE = Path(__file__).parent


def test_every_new_that_fails(tmp_path):
    preloaded = tmp_path / "libfailing_new.so"
    subprocess.run(
        ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", HERE / "failing_new.cpp", "-o", preloaded],
        check=True,
    )
    done = subprocess.run(
        [sys.executable, HERE / "every_new_fails.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": str(preloaded)},
    )
    assert done.returncode == 0, done.stderr
    counts = [int(count) for count in done.stdout.split()]
    assert sum(counts) > 20, counts


def test_thread_local_storage_is_there_with_the_thread():
    done = subprocess.run(
        ["readelf", "-rW", _core.__file__], capture_output=True, text=True, check=True
    )
    assert "DTPMOD" not in done.stdout and "TLSDESC" not in done.stdout
