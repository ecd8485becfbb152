# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill``: its commands, what they print and refuse."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import facts, run

import mla_prefill
from mla_prefill import MLAPrefillBackendEnum, MLAPrefillConfig, _core
from mla_prefill.cli.plain_tensors import DTYPES

COMMANDS = ("doctor", "backends", "bench", "selftest", "transformers")
DEEPSEEK = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
MODEL = {**DEEPSEEK, "num_attention_heads": 16, "torch_dtype": "bfloat16"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    text, _ = run(command, "--help")
    assert text.startswith(f"usage: python -m mla_prefill {command}")
    assert command in run("--help")[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["transformer"], "invalid choice: 'transformer'"),
        (["--json"], "arguments are required: COMMAND"),
        (["doctor", "--verbose"], "unrecognized arguments: --verbose"),
        # No part of a flag's name is the flag.
        (["doctor", "--js"], "unrecognized arguments: --js"),
        (["selftest", "all"], "unrecognized arguments: all"),
        (["backends", "--platform", "tpu"], "invalid choice: 'tpu'"),
        (["backends", "--device-capability", "9"], "'9': must be MAJOR.MINOR"),
        (["backends", "--device-capability", "-1.0"], "device-capability"),
        (["backends", "--qk-nope-head-dim", "-1"], "qk_nope_head_dim = -1"),
        (["bench", "--dtype", "float64"], "dtype = float64: must be one of bfloat16"),
        (["bench", "--lengths", "0"], "'0': must be 1 to"),
        (["bench", "--num-heads", "many"], "'many': must be 1 to"),
        (["bench", "--v-head-dim", "0"], "v_head_dim = 0"),
    ],
)
def test_refused_arguments(arguments, text):
    out, errors = run(*arguments, status=2)
    assert text in errors and errors.startswith("usage: python -m mla_prefill") and not out


def test_transformers_is_not_installed_here():
    assert " is not installed" in run("transformers", status=1)[1]


def test_doctor():
    text, errors = run()
    assert run("doctor")[0] == text and not errors
    found = facts("doctor", MLA_MAX_ISA="avx2")
    assert set(found) == {
        "version", "abi", "library", "cpu", "threads", "python", "packages", "environment",
        "backends", "vllm",
    }  # fmt: skip
    assert found["version"] == mla_prefill.__version__ and found["abi"] == 1
    assert found["library"] == mla_prefill.library_path()
    assert found["cpu"]["isa"] in ("portable", "avx2", "neon")
    assert found["environment"] == {"MLA_MAX_ISA": "avx2"}
    assert found["packages"]["numpy"] == np.__version__
    assert [row["name"] for row in found["backends"]] == [m.name for m in MLAPrefillBackendEnum]


def test_doctor_tells_of_all_variables_that_are_read():
    sources = Path(__file__).parents[2] / "Sources"
    texts = (path.read_text() for path in sources.glob("MLA[CPS]*/**/*.[cs]*") if path.is_file())
    read = set(re.findall(r'getenv\("(MLA_\w+)"', "".join(texts))) | {"MLA_CACHE_DIR"}
    assert len(read) > 4
    variables = dict.fromkeys(read, "0")
    assert facts("doctor", **variables)["environment"] == variables


def test_reader_that_stops_early():
    done = subprocess.run(
        f"{sys.executable} -m mla_prefill doctor --json | :; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == "" and done.stdout.strip() in ("0", "1")


@pytest.mark.parametrize(
    "config",
    [
        MLAPrefillConfig(**DEEPSEEK),
        MLAPrefillConfig(dtype="float32", qk_nope_head_dim=24, qk_rope_head_dim=8, v_head_dim=16),
        MLAPrefillConfig(**DEEPSEEK, device_capability=(9, 0)),
        MLAPrefillConfig(**DEEPSEEK, backend="FLASHINFER"),
        MLAPrefillConfig(**DEEPSEEK, backend="NONE"),
    ],
)
def test_backends(config):
    """Reasons and choice are the library's."""
    flags = ["--dtype", config.dtype, "--backend", config.backend or "auto"]
    for name in DEEPSEEK:
        flags += ["--" + name.replace("_", "-"), str(getattr(config, name))]
    if config.device_capability:
        flags += ["--device-capability", "{}.{}".format(*config.device_capability)]
    try:
        chosen, refusal = _core.select(config.library_config()), None
    except ValueError as error:
        chosen, refusal = None, str(error)
    status = 0 if chosen else 1
    found = facts("backends", *flags, status=status)
    assert (found["chosen"], found["refusal"]) == (chosen, refusal)
    text, _ = run("backends", *flags, status=status)
    for row, line in zip(mla_prefill.backends(config), text.splitlines()[1:], strict=False):
        name, verdict = line.split(maxsplit=1)
        expected = "supported" if row.is_valid else "; ".join(row.reasons)
        assert (name, verdict) == (row.name, "chosen" if row.name == chosen else expected)
        assert json.loads(json.dumps(row._asdict())) in found["backends"]
    assert text.endswith("\n" if chosen else f"none is chosen: {refusal}\n")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MODEL, ("bfloat16", 128)),
        ({**MODEL, "dtype": "float16", "qk_nope_head_dim": 192}, ("float16", 192)),
        ({"text_config": MODEL, "vision_config": {}, "dtype": "float32"}, ("bfloat16", 128)),
        ({"text_config": {**MODEL, "torch_dtype": None}, "dtype": "float16"}, ("float16", 128)),
        ({**MODEL, "torch_dtype": "auto"}, ("bfloat16", 128)),
    ],
)
def test_model_file(tmp_path, config, expected):
    (tmp_path / "config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "config.json"):
        found = facts("backends", "--model", str(path))
        assert (found["dtype"], found["qk_nope_head_dim"]) == expected
    found = facts("backends", "--model", str(tmp_path), "--qk-nope-head-dim", "64")
    assert (found["qk_nope_head_dim"], found["v_head_dim"]) == (64, 128)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "is no JSON"),
        ("[" * 100000, "is no JSON"),
        ("é".encode("latin-1"), "is no JSON"),
        ("[]", "has no qk_nope_head_dim"),
        ('{"text_config": 1}', "has no qk_nope_head_dim"),
        (json.dumps({**MODEL, "v_head_dim": None}), "v_head_dim = null"),
        (json.dumps({**MODEL, "qk_rope_head_dim": True}), "qk_rope_head_dim = true"),
        (json.dumps({**MODEL, "num_attention_heads": "16"}), 'num_attention_heads = "16"'),
        (json.dumps({**MODEL, "qk_nope_head_dim": 1 << 80}), "qk_nope_head_dim"),
        (json.dumps({**MODEL, "qk_nope_head_dim": -1}), "qk_nope_head_dim = -1"),
    ],
)
def test_refused_model_files(tmp_path, text, refusal):
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refusal in run("backends", "--model", str(path), status=2)[1]


def test_model_file_that_is_not_there():
    assert "/none: No such file" in run("backends", "--model", "/none", status=2)[1]


def test_bench():
    found = facts("bench", "--lengths", "64", "16", "--no-torch", "--num-heads", "3")
    assert (found["num_heads"], found["dtype"], found["torch"]) == (3, "bfloat16", None)
    assert found["backend"] == _core.select(MLAPrefillConfig(**DEEPSEEK).library_config())
    assert [row["tokens"] for row in found["lengths"]] == [16, 64]
    for row in found["lengths"]:
        timing, tokens = row["mla_prefill"], row["tokens"]
        flops = 2 * 3 * (192 + 128) * sum(range(1, tokens + 1))
        assert timing["seconds"] > 0 and 1 <= timing["runs"] <= 21
        assert timing["tflops"] == pytest.approx(flops / timing["seconds"] * 1e-12)
        assert (timing["fraction"] is None) == (found["instruction"] is None)


@pytest.mark.parametrize(
    ("table", "instruction"),
    [("avx2", "vfmadd 256"), ("portable", "mulps+addps"), ("avx512", "vfmadd 512")],
)
def test_bench_names_the_instruction(table, instruction):
    flags = ("--lengths", "8", "--seconds", "1", "--no-torch", "--dtype", "float32")
    found = facts("bench", *flags, MLA_MAX_ISA=table)
    if f"fp32 {table}" not in found["summary"]:
        pytest.skip(f"no {table} here")
    assert found["instruction"] == instruction
    assert found["lengths"][0]["mla_prefill"]["instruction_tflops"] > 0
    text, _ = run("bench", *flags, MLA_MAX_ISA=table)
    assert f"of {instruction}\n" in text and text.splitlines()[-1].split()[0] == "8"


def test_lengths_for_which_there_is_no_time_are_left_out():
    flags = ("--lengths", "64", "16384", "--num-heads", "4", "--seconds", "4", "--no-torch")
    found = facts("bench", *flags, MLA_MAX_ISA="portable")
    assert found["lengths"][0]["mla_prefill"] and not found["lengths"][1]["mla_prefill"]


def test_instruction_rate():
    for dtype in DTYPES:
        name, rate = _core.instruction_rate(_core.dtype_of_name(dtype), 0.001)
        assert (rate > 0) == bool(name)
    with pytest.raises(ValueError, match="dtype = 99: must be of bfloat16"):
        _core.instruction_rate(99, 0)
    for seconds in (-1, 1.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds"):
            _core.instruction_rate(_core.dtype_of_name("float32"), seconds)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress(is_terminal):
    """On a terminal alone, and nothing is left of it."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mla_prefill", "bench", "--lengths", "8", "--seconds", "1"],
            stdout=subprocess.PIPE, stderr=theirs if is_terminal else subprocess.PIPE,
        )  # fmt: skip
        shown = os.read(ours, 10000) if is_terminal else done.stderr
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0 and b"[" not in done.stdout
    lines = shown.decode().split("\r")
    assert is_terminal == ("mla_prefill, 8 tokens" in shown.decode()) and lines[-1] == ""
