# SPDX-License-Identifier: Apache-2.0
"""Tensors of any library by DLPack, and the package's own."""

import ctypes
import sys

import ml_dtypes
import numpy as np
import pytest
from mean_backend import backend_object
from reference import Problem
from test_backends import backend_for

from mla_prefill import (
    MLAPrefillBackend,
    PrefillMetadata,
    _adapter,
    _core,
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


def test_consumers_hold_bare_tensors():
    tensor = bare_tensor()
    held = sys.getrefcount(tensor)
    view = np.from_dlpack(tensor)
    assert sys.getrefcount(tensor) == held + 1
    del view
    assert sys.getrefcount(tensor) == held


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
    backend = backend_object("COPYING", num_heads=2, dim=3)
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


class Managed(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint32 * 2),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


CODES = {"i": 0, "f": 2}
CAPSULE_NAME = b"dltensor_versioned"


class ByHand(Exporter):
    """What NumPy never exports: an offset, no strides, and a version of choice."""

    def __init__(self, array, version=(1, 0)):
        super().__init__(np.concatenate([np.ones(3, array.dtype), array.ravel()]))
        kind, shape = array.dtype, array.shape
        self.managed = Managed(
            version=version,
            data=self.array.ctypes.data,
            device=self.device,
            ndim=len(shape),
            dtype=(CODES[kind.kind], 8 * kind.itemsize, 1, 0),
            shape=(ctypes.c_int64 * len(shape))(*shape),
            byte_offset=3 * kind.itemsize,
        )

    def __dlpack__(self, max_version):
        new_capsule = ctypes.pythonapi.PyCapsule_New
        new_capsule.restype = ctypes.py_object
        return new_capsule(ctypes.byref(self.managed), CAPSULE_NAME, None)


def test_tensors_with_an_offset():
    problem = Problem([5, 6])
    backend = backend_for(Problem([11]))
    backend.prepare_metadata(PrefillMetadata(query_start_loc=ByHand(np.array(problem.queries))))
    results = backend.run_prefill_new_tokens(ByHand(problem.q), problem.k, problem.v, True)
    problem.check(*map(np.from_dlpack, results))


def test_tensors_of_a_later_dlpack():
    problem = Problem([5])
    with pytest.raises(ValueError, match="^q: its DLPack version is too new"):
        backend_for(problem).run_prefill_new_tokens(
            ByHand(problem.q, (2, 0)), problem.k, problem.v, True
        )


def without_memory(array):
    """As torch's fake tensors are, and those whose storage has gone."""
    tensor = ByHand(array)
    tensor.managed.data = None
    return tensor


def test_floats_without_memory():
    problem = Problem([5])
    with pytest.raises(ValueError, match="^q.data = NULL: must not be NULL"):
        backend_for(problem).run_prefill_new_tokens(
            without_memory(problem.q), problem.k, problem.v, True
        )


def test_an_interruption_is_no_refusal():
    class Interrupted(Exporter):
        def __dlpack__(self, **keywords):
            raise KeyboardInterrupt

    problem = Problem([5])
    with pytest.raises(KeyboardInterrupt):
        backend_for(problem).run_prefill_new_tokens(
            Interrupted(problem.q), problem.k, problem.v, True
        )
