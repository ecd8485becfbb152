# SPDX-License-Identifier: Apache-2.0
"""The driver, a real one's or the machine's, as far as arrays on its devices need it."""

import ctypes
from contextlib import contextmanager

_library = ctypes.CDLL("libcuda.so.1")
#: Streams of every context.
LEGACY, PER_THREAD = 1, 2
_NON_BLOCKING = 1
Address, Handle = ctypes.c_uint64, ctypes.c_void_p
_ARGUMENTS = {
    "cuInit": [ctypes.c_uint],
    "cuDriverGetVersion": [ctypes.POINTER(ctypes.c_int)],
    "cuDeviceGetName": [ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
    "cuDeviceGetAttribute": [ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int],
    "cuDevicePrimaryCtxRetain": [ctypes.POINTER(Handle), ctypes.c_int],
    "cuDevicePrimaryCtxReset_v2": [ctypes.c_int],
    "cuCtxPushCurrent_v2": [Handle],
    "cuCtxPopCurrent_v2": [ctypes.POINTER(Handle)],
    "cuCtxSynchronize": [],
    "cuMemAlloc_v2": [ctypes.POINTER(Address), ctypes.c_size_t],
    "cuMemFree_v2": [Address],
    "cuMemcpyHtoDAsync_v2": [Address, ctypes.c_void_p, ctypes.c_size_t, Handle],
    "cuMemcpyDtoHAsync_v2": [ctypes.c_void_p, Address, ctypes.c_size_t, Handle],
    "cuMemcpyDtoDAsync_v2": [Address, Address, ctypes.c_size_t, Handle],
    "cuMemsetD8Async": [Address, ctypes.c_ubyte, ctypes.c_size_t, Handle],
    "cuStreamCreate": [ctypes.POINTER(Handle), ctypes.c_uint],
    "cuStreamWaitEvent": [Handle, Handle, ctypes.c_uint],
    "cuEventCreate": [ctypes.POINTER(Handle), ctypes.c_uint],
    "cuEventRecord": [Handle, Handle],
    "cuEventDestroy_v2": [Handle],
    "cuEventSynchronize": [Handle],
    "cuEventElapsedTime": [ctypes.POINTER(ctypes.c_float), Handle, Handle],
    "cuStreamSynchronize": [Handle],
    "cuStreamBeginCapture_v2": [Handle, ctypes.c_int],
    "cuStreamEndCapture": [Handle, ctypes.POINTER(Handle)],
    "cuGraphInstantiateWithFlags": [ctypes.POINTER(Handle), Handle, ctypes.c_ulonglong],
    "cuGraphLaunch": [Handle, Handle],
    "cuLibraryLoadData": [
        ctypes.POINTER(Handle), ctypes.c_char_p, Handle, Handle, ctypes.c_uint, Handle, Handle, ctypes.c_uint
    ],
    "cuLibraryGetKernel": [ctypes.POINTER(Handle), Handle, ctypes.c_char_p],
    "cuKernelSetAttribute": [ctypes.c_int, ctypes.c_int, Handle, ctypes.c_int],
    "cuLaunchKernel": [Handle, *[ctypes.c_uint] * 7, Handle, Handle, Handle],
    "cuTensorMapEncodeTiled": [
        Handle, ctypes.c_int, ctypes.c_uint, Handle, *[Handle] * 4, *[ctypes.c_int] * 4
    ],
}
for _name, _types in _ARGUMENTS.items():
    getattr(_library, _name).argtypes = _types


class DriverError(Exception):
    pass


def call(name, *arguments):
    result = getattr(_library, name)(*arguments)
    if result != 0:
        raise DriverError(f"{name}: CUDA error {result}")


def number_of_calls(name=None):
    _library.gpu_machine_calls.restype = ctypes.c_long
    return _library.gpu_machine_calls(name.encode() if name else None)


def fail_next(name, error):
    _library.gpu_machine_fail(name.encode(), error, 1)


def _contexts():
    known = {}

    def of(device):
        if device not in known:
            call("cuInit", 0)
            context = Handle()
            call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
            known[device] = context
        return known[device]

    return of


_context = _contexts()


@contextmanager
def device(index):
    """Whose primary context is current meanwhile."""
    call("cuCtxPushCurrent_v2", _context(index))
    try:
        yield
    finally:
        call("cuCtxPopCurrent_v2", None)


def made(function, *arguments):
    handle = Handle()
    call(function, ctypes.byref(handle), *arguments)
    return handle.value


def stream():
    """One for which the default streams do not wait. Of the current device."""
    return made("cuStreamCreate", _NON_BLOCKING)


def wait(waiting, awaited):
    """Until what was put on a stream by now is done, another does nothing more."""
    event = made("cuEventCreate", 0)
    call("cuEventRecord", event, awaited)
    call("cuStreamWaitEvent", waiting, event, 0)
    call("cuEventDestroy_v2", event)
