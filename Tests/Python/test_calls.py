# SPDX-License-Identifier: Apache-2.0
"""What the library tells of calls and counts of them."""

import subprocess
import sys

import numpy as np
import pytest

import mla_prefill

ONE_CALL = """
import sys
import numpy as np
import mla_prefill
{before}
q = np.zeros((5, 2, 24), np.float32)
v = np.zeros((5, 2, 16), np.float32)
mla_prefill.attention(q, q, v, scale=0.2)
{after}
"""


def run(before: str = "", after: str = "", verbose: str = "") -> tuple[str, str]:
    program = subprocess.run(
        [sys.executable, "-c", ONE_CALL.format(before=before, after=after)],
        capture_output=True,
        text=True,
        check=True,
        env={**__import__("os").environ, "MLA_VERBOSE": verbose},
    )
    return program.stdout, program.stderr


def test_a_call_is_counted() -> None:
    q = np.zeros((5, 2, 24), np.float32)
    mla_prefill.reset_stats()
    assert mla_prefill.stats() == []
    mla_prefill.attention(q, q, q[..., :16], scale=0.2)
    with pytest.raises(ValueError):
        mla_prefill.attention(q, q[:, :, :8], q[..., :16], scale=0.2)
    rows = {row["kernel"]: row for row in mla_prefill.stats()}
    good = rows[mla_prefill.cpu_features()["fp32_isa"]]
    assert (good["entry"], good["calls"], good["failures"], good["tokens"]) == (
        "mla_attention",
        1,
        0,
        5,
    )
    assert good["seconds"] > 0
    assert all(row["failures"] == row["calls"] for kernel, row in rows.items() if kernel == "none")
    mla_prefill.reset_stats()
    assert mla_prefill.stats() == []


def test_nothing_is_told_unasked() -> None:
    assert run() == ("", "")


def test_the_environment_asks_for_lines() -> None:
    out, err = run(verbose="1")
    assert out == ""
    assert err.startswith("mla_verbose,call,mla_attention,-,cpu,fp32,requests:1 tokens:5")
    assert err.count("\n") == 1


def test_a_program_asks_for_lines() -> None:
    _, err = run(before="mla_prefill.set_verbose(1)", after="mla_prefill.set_verbose(0)")
    assert err.count("mla_verbose,call,mla_attention") == 1


def test_lines_go_to_the_log() -> None:
    before = """
import logging
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
mla_prefill.set_verbose(1, to_log=True)
"""
    out, err = run(before=before)
    assert out.startswith("mla_prefill INFO mla_verbose,call,mla_attention") and err == ""


@pytest.mark.parametrize("level", [-1, 3, 2**31])
def test_levels(level: int) -> None:
    with pytest.raises(ValueError, match="level"):
        mla_prefill.set_verbose(level)


def test_types() -> None:
    with pytest.raises(TypeError, match="level"):
        mla_prefill.set_verbose("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="to_log"):
        mla_prefill.set_verbose(0, to_log=2)  # type: ignore[arg-type]
