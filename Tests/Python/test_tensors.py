# SPDX-License-Identifier: Apache-2.0
import gc
import sys

import numpy as np
import pytest
from reference import TYPES, Problem, check_from_many_threads
from test_backends import backend_for
from test_dlpack import Exporter

import mla_prefill
from mla_prefill import MLAPrefillBackendEnum, PrefillMetadata

#: Ways to make of a tensor, whatever it is for, one that must be refused.
WRONG_TENSORS = [
    (lambda t: t.tolist(), TypeError),
    (lambda t: "text", TypeError),
    (lambda t: t.astype(np.float64), TypeError),
    (lambda t: t.astype(np.int32), TypeError),
    (lambda t: t.astype(">f4"), TypeError),
    (lambda t: t[0], ValueError),
    (lambda t: t[None], ValueError),
    (lambda t: np.float32(3), ValueError),
    (lambda t: t[..., :3], ValueError),
    (lambda t: t[..., ::-1], ValueError),
    (lambda t: np.repeat(t, 2, -1)[..., ::2], ValueError),
    # Elements of four bytes, five apart.
    (lambda t: np.zeros(t.shape, [("t", "f4"), ("flag", "i1")])["t"], ValueError),
    (lambda t: Exporter(t, (2, 0)), ValueError),
]


def mutated(problem, **changed):
    tensors = {"q": problem.q, "k": problem.k, "v": problem.v, **changed}
    return tensors


@pytest.mark.parametrize("name", ["q", "k", "v", "out"])
@pytest.mark.parametrize(
    "change, error",
    [
        *WRONG_TENSORS,
        (lambda t: t[None, None], ValueError),
        (lambda t: t[:, :1], ValueError),
        (lambda t: t[::-1], ValueError),
        (
            lambda t: (
                np.frombuffer(b"\0" * (t.nbytes + 1), np.uint8)[1:]
                .view(np.float32)
                .reshape(t.shape)
            ),
            ValueError,
        ),
    ],
)
def test_wrong_tensors_are_named(name, change, error):
    problem = Problem([5, 6])
    tensors = mutated(problem, out=np.zeros((11, 2, 16), np.float32))
    tensors[name] = change(tensors[name])
    with pytest.raises(error, match=rf"\b{name}\b"):
        backend_for(problem).run_prefill_new_tokens(**tensors, return_softmax_lse=True)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_missing_tensors_are_named(name):
    problem = Problem([5])
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
        backend_for(problem).run_prefill_new_tokens(
            **mutated(problem, **{name: None}), return_softmax_lse=True
        )


@pytest.mark.parametrize("dtype", TYPES)
def test_read_only_out_is_named(dtype):
    problem = Problem([5], dtype=dtype)
    out = np.zeros((5, 2, 16), problem.q.dtype)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: is read-only"):
        backend_for(problem).run_prefill_new_tokens(problem.q, problem.k, problem.v, False, out=out)


def test_overlapping_out_is_named():
    problem = Problem([5], value=32)
    with pytest.raises(ValueError, match=r"out\.data.*must not overlap q"):
        backend_for(problem).run_prefill_new_tokens(
            problem.q, problem.k, problem.v, False, out=problem.q
        )


@pytest.mark.parametrize(
    "offsets, error",
    [
        (None, TypeError),
        ("012", TypeError),
        (3, TypeError),
        ([0, 2.5], TypeError),
        (np.array([0.0, 5]), TypeError),
        (np.array([False, True]), TypeError),
        ([[0, 5]], TypeError),
        (np.array([[0, 5]]), ValueError),
        (np.array(5), ValueError),
        ([], ValueError),
        ([1, 5], ValueError),
        ([0, 5, 4], ValueError),
        ([0, -5], ValueError),
        ([0, 1 << 40], ValueError),
        (np.array([0, 1 << 40]), ValueError),
        ([0, 10**30], ValueError),
    ],
)
def test_wrong_offsets_are_named(offsets, error):
    backend = backend_for(Problem([5]))
    with pytest.raises(error, match=r"query_start_loc|num_requests"):
        backend.prepare_metadata(PrefillMetadata(query_start_loc=offsets))


@pytest.mark.parametrize(
    "field", ["num_heads", "scale", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim"]
)
@pytest.mark.parametrize(
    "value, error",
    [
        ("x", TypeError),
        (None, TypeError),
        (-1e30, (TypeError, ValueError)),
        (1 << 70, (TypeError, ValueError)),
    ],
)
def test_wrong_arguments_of_constructors_are_named(field, value, error):
    arguments = {**Problem([1]).arguments, field: value}
    if field == "scale" and value == -1e30:
        MLAPrefillBackendEnum.CPU.get_class()(**arguments)
        return
    if field == "scale" and value == 1 << 70:
        value = arguments[field] = 1e300
    with pytest.raises(error, match=field):
        MLAPrefillBackendEnum.CPU.get_class()(**arguments)


def test_host():
    features = mla_prefill.cpu_features()
    assert features["isa"] in mla_prefill.cpu_summary()
    with open("/proc/cpuinfo") as file:
        # By Linux's names, where there are any.
        assert set(features["features"]) <= {*file.read().split(), "amx_tile", "amx_bf16"}
    before = mla_prefill.get_num_threads()
    mla_prefill.set_num_threads(3)
    assert mla_prefill.get_num_threads() == 3
    mla_prefill.set_num_threads(0)
    assert mla_prefill.get_num_threads() == before
    for bad, error in ((-1, ValueError), (5000, ValueError), ("x", TypeError), (2.0, TypeError)):
        with pytest.raises(error, match="num_threads"):
            mla_prefill.set_num_threads(bad)
    assert mla_prefill.library_path().endswith("libmlaprefill.so.1")


def test_trim():
    problem = Problem([40, 3, 17])
    backend_for(problem).run_prefill_new_tokens(problem.q, problem.k, problem.v, False)
    assert mla_prefill.trim() > 0
    assert mla_prefill.trim() == 0


def test_one_object_from_many_threads():
    problem = Problem([40, 3, 17])
    backend = backend_for(problem)
    check_from_many_threads(
        problem,
        lambda: backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False),
    )


def test_calls_keep_nothing():
    problem = Problem([5, 6])
    backend = backend_for(problem)
    wrong = problem.v.astype(np.float64)
    exporters = [Exporter(tensor) for tensor in (problem.q, problem.k, problem.v)]
    tensors = [problem.q, problem.k, problem.v, wrong, *exporters]

    def counts():
        return [sys.getrefcount(tensor) for tensor in tensors]

    before = counts()
    for _ in range(50):
        backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, True)
        backend.run_prefill_new_tokens(*exporters, True)
        with pytest.raises(TypeError):
            backend.run_prefill_new_tokens(problem.q, problem.k, wrong, True)
    gc.collect()
    assert counts() == before
