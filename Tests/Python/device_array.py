# SPDX-License-Identifier: Apache-2.0
"""Arrays on a device that there is not: at addresses that nobody can read or write."""

import ctypes
import mmap
from types import SimpleNamespace

from mla_prefill import _core

CUDA = (2, 1)
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_map = ctypes.CDLL(None).mmap
_map.restype = ctypes.c_void_p
_map.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_PROT_NONE = 0
#: Of a versioned capsule: where the tensor's address and device are.
_DATA, _DEVICE = 32, 40


def device_pages(count):
    """Their first address."""
    return _map(None, 4096 * count, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)


def exported(capsule):
    """Address, type and id of a capsule's device."""
    start = _pointer_of(capsule, b"dltensor_versioned")
    return (
        ctypes.c_void_p.from_address(start + _DATA).value,
        *(ctypes.c_int32 * 2).from_address(start + _DEVICE),
    )


class DeviceArray:
    """Nothing but shape, type and DLPack, and the array API's way to more of its kind."""

    made = []

    def __init__(self, shape, dtype="float32", device=CUDA):
        self.shape, self.dtype, self.device = tuple(shape), dtype, device
        self.address, self.streams, self.stored = device_pages(16), [], []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, max_version=None):
        self.streams.append(stream)
        tensor = _core.HostTensor(list(self.shape), _core.dtype_of_name(self.dtype))
        capsule = tensor.__dlpack__(max_version=(1, 0))
        start = _pointer_of(capsule, b"dltensor_versioned")
        ctypes.c_void_p.from_address(start + _DATA).value = self.address
        (ctypes.c_int32 * 2).from_address(start + _DEVICE)[:] = self.device
        return capsule

    def __getitem__(self, key):
        return self

    def __array_namespace__(self):
        return SimpleNamespace(full=self._full, from_dlpack=self._from_dlpack, float32="float32")

    def _full(self, shape, value, *, dtype, device):
        made = DeviceArray(shape, dtype, device)
        self.made.append((made, value))
        return made

    def _from_dlpack(self, tensor):
        return Target(tensor.__dlpack__(stream=tensor.stream, max_version=(1, 0)))


class Target:
    """What has been made of a tensor of the library's to be written to."""

    written = []

    def __init__(self, capsule):
        self.where = exported(capsule)

    def __setitem__(self, key, value):
        self.written.append((self.where, value))
