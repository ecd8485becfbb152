# SPDX-License-Identifier: Apache-2.0
"""Arrays in memory of the machine's devices: DLPack, which keeps its rules about streams, and
the array API's way to more of their kind."""

import ctypes
from types import SimpleNamespace

import cuda_driver as driver
import ml_dtypes
import numpy as np

_CUDA = 2
#: DLPack's code and bits of a type.
_TYPES = {
    "float32": (2, 32, np.float32),
    "float16": (2, 16, np.float16),
    "bfloat16": (4, 16, ml_dtypes.bfloat16),
    "float8_e4m3fn": (10, 8, ml_dtypes.float8_e4m3fn),
    "uint8": (1, 8, np.uint8),
    "int32": (0, 32, np.int32),
    "int64": (0, 64, np.int64),
}


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_ = [
        ("version", ctypes.c_uint32 * 2),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_python = ctypes.PyDLL(None)
_capsule, _is_valid, _pointer_of = (
    getattr(_python, f"PyCapsule_{name}") for name in ("New", "IsValid", "GetPointer")
)
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, _CALLBACK]
_is_valid.argtypes = _pointer_of.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_pointer_of.restype = ctypes.c_void_p
#: Outlives the capsules, which keep its address.
_NAME = b"dltensor_versioned"
_exported = {}
_release = _CALLBACK(lambda address: _exported.pop(address, None))


@_CALLBACK
def _forget(capsule):
    """A capsule goes; one whose tensor somebody has taken has another name."""
    if _is_valid(capsule, _NAME):
        _exported.pop(_pointer_of(capsule, _NAME), None)


class _Memory:
    def __init__(self, size, device):
        self.device, self.address = device, 0
        with driver.device(device):
            if size:
                address = driver.Address()
                driver.call("cuMemAlloc_v2", ctypes.byref(address), size)
                self.address = address.value

    def __del__(self):
        try:
            with driver.device(self.device):
                driver.call("cuMemFree_v2", self.address)
        except driver.DriverError:  # The device is lost, or a test has reset it.
            pass


class CudaArray:
    """On a stream of its own, on which it is made and read.

    Args:
        values: a numpy array, whose strides it has, too.
        waits: whether it has a consumer's stream wait for its own.
    """

    def __init__(self, values, device=0, *, waits=True):
        low, high = np.lib.array_utils.byte_bounds(values) if values.size else (0, 0)
        kind = next(name for name, entry in _TYPES.items() if entry[2] == values.dtype)
        self._memory = _Memory(high - low, device)
        self._values, self._bytes = values, high - low
        self._strides = tuple(stride // values.itemsize for stride in values.strides)
        self.shape, self.dtype, self._place = values.shape, kind, (_CUDA, device)
        self.address, self.waits, self.streams = self._memory.address, waits, []
        with driver.device(device):
            self.stream = driver.stream()
            self._copy("cuMemcpyHtoDAsync_v2", self.address, values.ctypes.data)

    def _copy(self, function, to, source):
        if self._bytes:
            driver.call(function, to, source, self._bytes, self.stream)

    @property
    def device(self):
        return self._place

    def __dlpack_device__(self):
        return self._place

    def __dlpack__(self, *, stream=None, max_version=None):
        assert max_version and max_version[0] >= 1 and (stream != 0 or self._place[0] != _CUDA)
        self.streams.append(stream)
        if self.waits and stream != -1:
            with driver.device(self._place[1]):
                driver.wait(stream or driver.LEGACY, self.stream)
        code, bits, _ = _TYPES[self.dtype]
        ndim = len(self.shape)
        sizes = (ctypes.c_int64 * ndim)(*self.shape), (ctypes.c_int64 * ndim)(*self._strides)
        tensor = _Tensor(self.address, self._place, ndim, code, bits, 1, *sizes, 0)
        managed = _Managed((1, 0), None, ctypes.cast(_release, ctypes.c_void_p), 0, tensor)
        _exported[ctypes.addressof(managed)] = managed, sizes, self
        return _capsule(ctypes.addressof(managed), _NAME, _forget)

    def numpy(self, after=driver.LEGACY):
        """Its values once what is on a stream is done; the gaps of strided ones are as they were."""
        with driver.device(self._place[1]):
            if after is not None:
                driver.wait(self.stream, after)
            self._copy("cuMemcpyDtoHAsync_v2", self._values.ctypes.data, self.address)
        return self._values

    def __array_namespace__(self):
        return SimpleNamespace(full=self._full, **{name: name for name in _TYPES})

    def _full(self, shape, value, *, dtype, device):
        return type(self)(np.full(shape, value, _TYPES[dtype][2]), self._place[1])


class CuPyArray(CudaArray):
    """One whose library has a current stream, which the package knows to ask for."""

    @property
    def device(self):
        return SimpleNamespace(id=super().device[1])


def strided(tensor, padding):
    """The same numbers with NaN between the rows."""
    wide = np.full((*tensor.shape[:-1], tensor.shape[-1] + padding), np.nan, tensor.dtype)
    view = wide[..., : tensor.shape[-1]]
    view[...] = tensor
    return view


def exported():
    """How many capsules, or what was made of them, hold memory."""
    return len(_exported)
