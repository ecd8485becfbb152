# SPDX-License-Identifier: Apache-2.0
"""What importing costs, what it drags in, and the doctor's report."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import mla_prefill
from mla_prefill import MLAPrefillBackendEnum


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import():
    program = """
import sys, time
begin, begin_cpu = time.perf_counter(), time.process_time()
import mla_prefill
print((time.perf_counter() - begin) * 1e3, (time.process_time() - begin_cpu) * 1e3)
assert not {"torch", "numpy", "ml_dtypes", "transformers", "vllm"} & set(sys.modules)
"""
    times = sorted(tuple(map(float, run("-c", program).split())) for _ in range(7))
    (best, cpu), (median, _) = times[0], times[3]
    print(f"import mla_prefill: {best:.1f} ms ({cpu:.1f} ms of CPU), median {median:.1f} ms of 7")


def test_version_is_the_headers():
    header = (Path(__file__).parents[2] / "include" / "mla_prefill.h").read_text()
    names = ("MAJOR", "MINOR", "PATCH")
    parts = [re.search(rf"MLA_VERSION_{name} (\d+)", header)[1] for name in names]
    assert mla_prefill.__version__ == version("mla-prefill") == ".".join(parts)


def test_report():
    text = run("-m", "mla_prefill", MLA_MAX_ISA="avx2")
    print(text)
    for expected in (
        f"mla_prefill {mla_prefill.__version__}, ABI 1",
        "libmlaprefill.so.1",
        "MLA_MAX_ISA=avx2",
        "torch ",
    ):
        assert expected in text
    for member in MLAPrefillBackendEnum:
        assert member.name in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_report_on_any_stream(encoding):
    value = "é中" + os.fsdecode(b"\xff")
    done = subprocess.run(
        [sys.executable, "-m", "mla_prefill"],
        capture_output=True,
        env={**os.environ, "MLA_PREFILL_VLLM": value, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert f"MLA_PREFILL_VLLM={value}".encode(encoding, "backslashreplace") in done.stdout


def test_package_is_typed_and_complete():
    package = Path(mla_prefill.__file__).parent
    assert (package / "py.typed").exists() and (package / "_core.pyi").exists()
    documented = [getattr(mla_prefill, name) for name in mla_prefill.__all__]
    assert all(value.__doc__ for value in documented)


def test_library_needs_nothing_of_swift():
    done = subprocess.run(
        ["ldd", mla_prefill.library_path()], capture_output=True, text=True, check=True
    )
    assert "swift" not in done.stdout and "not found" not in done.stdout
