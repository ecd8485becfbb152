# SPDX-License-Identifier: Apache-2.0
import gc
import sys

import ml_dtypes
import numpy as np
import pytest
from reference import Problem, check_from_many_threads
from test_backends import backend_for, quantized

import mla_prefill
from mla_prefill import (
    MLAPrefillBackend,
    MLAPrefillBackendEnum,
    PrefillMetadata,
    _adapter,
    _core,
    merge_attn_states,
    register_mla_prefill_backend,
)


class Exporter:
    """Nothing but DLPack, as before its version 1."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.device


class Namespaced(Exporter):
    def __array_namespace__(self):
        return np


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
    (lambda t: Exporter(t, (2, 0)), ValueError),
]


def test_dlpack_objects():
    problem = Problem([5, 6])
    backend = backend_for(problem)
    arrays = problem.q, problem.k, problem.v
    out, lse = backend.run_prefill_new_tokens(*map(Exporter, arrays), True)
    assert isinstance(out, _core.HostTensor) and out.shape == (11, 2, 16)
    problem.check(np.from_dlpack(out), np.from_dlpack(lse))
    out, lse = backend.run_prefill_new_tokens(*map(Namespaced, arrays), True)
    assert isinstance(out, np.ndarray)
    # NumPy before 2.1 is not told, and takes all of DLPack's memory for read-only.
    assert out.flags.writeable or np.lib.NumpyVersion(np.__version__) < "2.1.0"
    problem.check(out, lse)
    # Its memory goes when the last view does.
    view = np.from_dlpack(backend.run_prefill_new_tokens(*map(Exporter, arrays), False))
    problem.check(view)


def test_bare_tensors_of_the_package():
    tensor = _core.HostTensor([2, 3], _core.dtype_of_name("bfloat16"))
    array = np.asarray(tensor).view(ml_dtypes.bfloat16)
    array[:] = 3
    assert np.asarray(tensor).view(ml_dtypes.bfloat16).sum() == 18
    for shape in ([], [1] * 5, [-1], [1 << 62, 4]):
        with pytest.raises((ValueError, MemoryError)):
            _core.HostTensor(shape, 1)


def bare_tensor():
    tensor = _core.HostTensor([2, 3], _core.dtype_of_name("float32"))
    np.asarray(tensor)[:] = np.arange(6).reshape(2, 3)
    return tensor


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), [1, 1]])
def test_copies_of_bare_tensors(version):
    class Copied:
        def __init__(self, **keywords):
            self.keywords = keywords

        def __dlpack__(self, **keywords):
            return tensor.__dlpack__(max_version=version, **self.keywords)

        def __dlpack_device__(self):
            return tensor.__dlpack_device__()

    tensor = bare_tensor()
    copies = np.from_dlpack(Copied(copy=True, dl_device=(1, 0)))
    views = [np.from_dlpack(Copied(copy=copy, stream=None)) for copy in (None, False)]
    np.asarray(tensor)[0, 0] = 99
    assert copies.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [view[0, 0] for view in views] == [99, 99]


def test_copies_of_what_a_backend_borrows():
    """With gaps between the rows, and read-only."""

    class Copying(MLAPrefillBackend):
        supported_dtypes = ["float32"]

        @staticmethod
        def get_name():
            return "COPYING"

        def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, **keywords):
            raise NotImplementedError

        def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
            raise NotImplementedError

    rows = np.arange(4 * 2 * 8, dtype=np.float32).reshape(4, 2, 8)[:, :, :3]
    borrowed = []

    def keep(self, backend, q, *others):
        borrowed.append(np.from_dlpack(q, copy=True))

    register_mla_prefill_backend("COPYING")(Copying)
    backend = _core.Backend(
        "COPYING",
        num_heads=2,
        scale=1.0,
        kv_lora_rank=0,
        qk_nope_head_dim=3,
        qk_rope_head_dim=0,
        v_head_dim=3,
        ignore_override=False,
    )
    backend.prepare_metadata([0, 4], [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_adapter.BackendAdapter, "run_prefill_new_tokens", keep)
        out = np.zeros((4, 2, 3), np.float32)
        backend.run_prefill_new_tokens(rows, rows, rows, out, None, None, False)
    assert (borrowed[0] == rows).all() and borrowed[0].flags.c_contiguous


@pytest.mark.parametrize(
    "keywords, error",
    [
        ({"dl_device": (2, 0)}, BufferError),
        ({"dl_device": (1, 1)}, BufferError),
        ({"dl_device": 1}, TypeError),
        ({"dl_device": ("cpu", 0)}, TypeError),
        ({"stream": 3}, BufferError),
        ({"max_version": 1}, TypeError),
        ({"max_version": ()}, TypeError),
        ({"max_version": (1,)}, TypeError),
        ({"max_version": "10"}, TypeError),
        ({"max_version": ("1", 0)}, TypeError),
        ({"copy": "yes"}, TypeError),
        ({"cpoy": True}, TypeError),
    ],
)
def test_what_dlpack_cannot_give(keywords, error):
    (keyword,) = keywords
    with pytest.raises(error, match=rf"\b{keyword}\b") as caught:
        bare_tensor().__dlpack__(**keywords)
    assert type(caught.value) is error


def test_an_interruption_is_no_refusal():
    class Interrupted(Exporter):
        def __dlpack__(self, **keywords):
            raise KeyboardInterrupt

    problem = Problem([5])
    with pytest.raises(KeyboardInterrupt):
        backend_for(problem).run_prefill_new_tokens(
            Interrupted(problem.q), problem.k, problem.v, True
        )


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


def test_read_only_out_is_named():
    problem = Problem([5])
    out = np.zeros((5, 2, 16), np.float32)
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


def test_merge_names_its_arguments():
    out = np.zeros((3, 2, 4), np.float32)
    lse = np.zeros((2, 3), np.float32)
    for position, name in enumerate(
        ["output", "prefix_output", "prefix_lse", "suffix_output", "suffix_lse", "output_lse"]
    ):
        tensors = [out, out + 1, lse, out + 2, lse + 1, lse + 2]
        tensors[position] = tensors[position][:, :1]
        with pytest.raises(ValueError, match=name):
            merge_attn_states(*tensors)
    merge_attn_states(out, out + 1, lse, out + 3, lse, None, 2)
    assert (out[:2] == 2).all() and (out[2] == 3).all()


def test_quantized_merge():
    random = np.random.default_rng(3)

    def numbers(*shape):
        return random.standard_normal(shape).astype(np.float32)

    sides = numbers(90, 3, 20), numbers(3, 90), numbers(90, 3, 20), numbers(3, 90)
    exact = np.zeros((90, 3, 20), np.float32)
    merge_attn_states(exact, *sides)
    rows = np.zeros((90, 3, 25), ml_dtypes.float8_e4m3fn)
    for scale in (0.004, 0.7):
        merge_attn_states(rows[..., :20], *sides, output_scale=scale)
        codes = rows.view(np.uint8)
        assert (codes[..., :20] == quantized(exact, scale).view(np.uint8)).all()
        assert (codes[..., 20:] == 0).all()


def test_bfloat16_of_ml_dtypes_merges():
    half = np.ones((3, 2, 4), ml_dtypes.bfloat16)
    empty = np.full((2, 3), -np.inf, np.float32)
    out, lse = np.empty_like(half), np.zeros((2, 3), np.float32)
    merge_attn_states(out, half, empty, half, np.full((2, 3), np.inf, np.float32), lse)
    assert (out == 0).all() and np.isneginf(lse).all()


def test_host():
    features = mla_prefill.cpu_features()
    assert features["isa"] in mla_prefill.cpu_summary()
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
