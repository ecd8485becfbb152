# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill selftest``: passes on each table, and finds what is wrong."""

from operator import attrgetter

import ml_dtypes
import numpy as np
import pytest
import reference
from command_line import run

from mla_prefill import MLAPrefillBackendEnum
from mla_prefill.cli import float64_reference, main, plain_tensors, selftest_checks

WITHOUT_OTHERS = """
import sys
for name in ("numpy", "ml_dtypes", "torch", "transformers"):
    sys.modules[name] = None
from mla_prefill.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("table", ["", "avx2", "portable"])
def test_selftest(table):
    """Right on each table, and with nothing else installed."""
    text, _ = run("selftest", program=("-c", WITHOUT_OTHERS), MLA_MAX_ISA=table)
    print(text)
    names = [name for name, _ in selftest_checks.checks()]
    assert {name.split()[0] for name in names} == {"attention", "merge", "cache", "layer"}
    assert [line.split(":")[0] for line in text.splitlines()[1:-1]] == [f"ok {n}" for n in names]
    assert f"{len(names)} passed, 0 failed" in text


def spoiled(function, place):
    """As it is, but for a number of its argument at that place, or of what it returns."""

    def call(*arguments, **keywords):
        result = function(*arguments, **keywords)
        tensor = result if place is None else arguments[place]
        np.asarray(tensor).reshape(-1).view(np.uint8)[-1] ^= 0x40
        return result

    return call


def only(monkeypatch, name):
    chosen = [(each, check) for each, check in selftest_checks.checks() if each == name]
    monkeypatch.setattr("mla_prefill.cli.selftest.checks", lambda: chosen)


@pytest.mark.parametrize(
    ("check", "function", "place"),
    [
        ("merge float32", "merge_attn_states", 0),
        ("cache float16", "gather_and_maybe_dequant_cache", 1),
        ("layer bfloat16", "MLAPrefillLayer.forward", None),
    ],
)
def test_selftest_finds_wrong_results(monkeypatch, capsys, check, function, place):
    wrong = spoiled(attrgetter(function)(selftest_checks), place)
    monkeypatch.setattr(f"mla_prefill.cli.selftest_checks.{function}", wrong)
    only(monkeypatch, check)
    assert main(["selftest"]) == 1
    assert f"not ok {check}: error of " in capsys.readouterr().out


def test_selftest_finds_wrong_attention(monkeypatch, capsys):
    kind = MLAPrefillBackendEnum["FLASHINFER"].get_class()
    original = kind.run_prefill_new_tokens

    def wrong(self, q, k, v, **keywords):
        return original(self, k, q, v, **keywords)

    monkeypatch.setattr(kind, "run_prefill_new_tokens", wrong)
    only(monkeypatch, "attention float32")
    assert main(["selftest"]) == 1
    text = capsys.readouterr().out
    assert "not ok attention float32: error of FLASHINFER out" in text
    assert "error of FLASHINFER lse" in text and "error of CPU" not in text


def test_selftest_goes_on_after_an_exception(monkeypatch, capsys):
    def refuse(*_, **__):
        raise ValueError("q: must be better")

    monkeypatch.setattr("mla_prefill.cli.selftest_checks.MLAPrefillLayer", refuse)
    assert main(["selftest"]) == 1
    text = capsys.readouterr().out
    assert "not ok layer float16: ValueError: q: must be better" in text
    assert "10 passed, 3 failed" in text


def test_selftest_is_not_content_with_nan():
    assert not selftest_checks.Error("out", float("nan"), 1.0).is_within
    rows = [[1.0, float("nan")]]
    for error in (float64_reference.relative_error, float64_reference.largest_error):
        assert np.isnan(error(rows, [[1.0, 2.0]])) and np.isnan(error([[1.0, 2.0]], rows))


def test_reference_of_the_selftest():
    problem = reference.Problem([7], heads=1, context=None)
    rows = [tensor[:, 0].tolist() for tensor in (problem.q, problem.k, problem.v)]
    out, lse = float64_reference.attend(*rows, problem.scale)
    expected, expected_lse = problem.expected()
    np.testing.assert_allclose(out, expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(lse, expected_lse[0], rtol=1e-12)
    # With context the last query sees all keys.
    tail, tail_lse = float64_reference.attend(rows[0][4:], *rows[1:], problem.scale)
    assert (tail, tail_lse) == (out[4:], lse[4:])


@pytest.mark.parametrize("dtype", plain_tensors.DTYPES)
def test_numbers_without_numpy(dtype):
    values = np.random.default_rng(0).standard_normal(6000, np.float32) * np.float32(100)
    # Ties, whose last bit is even below and odd below.
    values[:3] = np.array([0x3F808000, 0x3F818000, 0xBF818000], np.uint32).view(np.float32)
    data = plain_tensors._bytes_of(values.tolist(), dtype)
    expected = values.astype(getattr(ml_dtypes, dtype, dtype))
    assert data == expected.tobytes()
    tensor = plain_tensors.empty((3, 2000), dtype)
    plain_tensors._write(tensor, data)
    rows = plain_tensors.rows_of(tensor)
    assert np.array_equal(rows, expected.astype(np.float64).reshape(3, 2000))
