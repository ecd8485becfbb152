# SPDX-License-Identifier: Apache-2.0
"""Tensors of device 0 and calls of the library on them: ctypes and numpy alone."""

import ctypes
import sys
from ctypes import byref, c_int32, c_void_p, pointer
from pathlib import Path

import numpy as np

_ROOT = Path(__file__).resolve().parents[3]
sys.path += [str(_ROOT / "Tests/GPU/python"), str(_ROOT / "examples/ctypes")]
import cuda_driver as driver  # noqa: E402
import prefill  # noqa: E402

#: bf16 is uint16, fp8 uint8.
DTYPES = {"bf16": (3, np.uint16), "fp16": (2, np.float16), "fp32": (1, np.float32), "fp8": (4, np.uint8)}
CUDA = 2


class _Config(prefill.BackendConfig):
    _fields_ = [("device_type", c_int32), ("device_id", c_int32)]


class Memory:
    """Bytes on the device, 0xFF at first: NaN in all formats."""

    def __init__(self, size, stream):
        address = driver.Address()
        driver.call("cuMemAlloc_v2", byref(address), max(size, 1))
        self.address, self.size = address.value, size
        self.clear(stream)

    def clear(self, stream):
        if self.size:
            driver.call("cuMemsetD8Async", self.address, 0xFF, self.size, stream)

    def __del__(self):
        driver.call("cuMemFree_v2", self.address)


class Tensor:
    """
    Args:
        padding: elements between the rows of the last dimension.
        shift: elements that it begins behind where its memory does.
    """

    def __init__(self, dtype, shape, stream, *, padding=0, shift=0):
        self.dtype, self.shape, self.stream = dtype, tuple(shape), stream
        self._code, self._numpy = DTYPES[dtype]
        self._wide = (*shape[:-1], shape[-1] + padding)
        itemsize = np.dtype(self._numpy).itemsize
        self._offset = shift * itemsize
        self.memory = Memory(int(np.prod(self._wide)) * itemsize + self._offset, stream)
        self.address = self.memory.address + self._offset

    def upload(self, values):
        """Of its shape and numpy's type for it."""
        wide = np.full(self._wide, 0xFF, np.uint8).astype(self._numpy) if self._wide != self.shape else values
        if wide is not values:
            wide.view(np.uint8)[...] = 0xFF
            wide[..., : self.shape[-1]] = values
        wide = np.ascontiguousarray(wide)
        if wide.size:
            driver.call("cuMemcpyHtoDAsync_v2", self.address, wide.ctypes.data, wide.nbytes, self.stream)
            driver.call("cuStreamSynchronize", self.stream)
        return self

    def download(self, *, gaps=False):
        """Its values; those between the rows beside them."""
        wide = np.empty(self._wide, self._numpy)
        if wide.size:
            driver.call("cuMemcpyDtoHAsync_v2", wide.ctypes.data, self.address, wide.nbytes, self.stream)
            driver.call("cuStreamSynchronize", self.stream)
        values = wide[..., : self.shape[-1]]
        return (values, wide[..., self.shape[-1] :]) if gaps else values

    def view(self):
        tensor = prefill.Tensor(
            dtype=self._code, data=self.address, device_type=CUDA, device_id=0, ndim=len(self.shape)
        )
        stride = 1
        for i in reversed(range(len(self.shape))):
            tensor.shape[i], tensor.strides[i] = self.shape[i], stride
            stride *= self._wide[i]
        return tensor


class Backend:
    def __init__(self, heads, nope, rope, value, name=b"FLASH_ATTN"):
        self.heads, self.qk, self.value = heads, nope + rope, value
        self.scale = (nope + rope) ** -0.5
        config = _Config(
            num_heads=heads, scale=self.scale, kv_lora_rank=512, qk_nope_head_dim=nope,
            qk_rope_head_dim=rope, v_head_dim=value, device_type=CUDA, device_id=0)
        self._raw = c_void_p()
        prefill.call("mla_backend_create", name, byref(config), byref(self._raw))

    def __del__(self):
        prefill.LIBRARY.mla_backend_destroy(self._raw)

    def prepare(self, queries, keys=None):
        """Offsets; with keys a chunk is announced, else new tokens attend to themselves."""
        self._queries, self._keys = queries, keys
        data = {"query_start_loc": queries}
        self._chunk = None
        if keys is not None:
            data |= {"chunk0_query_start_loc": queries, "chunk0_cu_seq_lens": keys}
            self._chunk = prefill.chunk_of(data, 0)
        prefill.prepare(self._raw, data, [self._chunk] if self._chunk else [])

    def run(self, stream, *, output_scale=None, **tensors):
        """What was prepared, on tensors q, k, v, out, lse."""
        views = {name: pointer(tensor.view()) for name, tensor in tensors.items()}
        if self._chunk is not None:
            arguments = prefill.ContextChunkArgs(chunk=pointer(self._chunk), stream=stream, **views)
            return prefill.call("mla_run_prefill_context_chunk", self._raw, byref(arguments))
        arguments = prefill.NewTokensArgs(stream=stream, **views)
        if output_scale is not None:
            scale = ctypes.c_float(output_scale)
            arguments.output_scale = ctypes.addressof(scale)
        return prefill.call("mla_run_prefill_new_tokens", self._raw, byref(arguments))


def merge(stream, **tensors):
    arguments = prefill.MergeArgs(prefill_tokens_with_context=-1, stream=stream)
    for name, tensor in tensors.items():
        setattr(arguments, name, pointer(tensor.view()))
    prefill.call("mla_merge_attn_states", byref(arguments))


def captured(stream, body):
    """A graph of what the body puts on the stream; a function that launches it."""
    driver.call("cuStreamBeginCapture_v2", stream, 0)
    body()
    graph, executable = driver.Handle(), driver.Handle()
    driver.call("cuStreamEndCapture", stream, byref(graph))
    driver.call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
    return lambda: driver.call("cuGraphLaunch", executable, stream)


def milliseconds(stream, body, repeats):
    """Each of so many runs of the body by events around it, after two that do not count."""
    events = [driver.made("cuEventCreate", 0) for _ in range(repeats + 1)]
    for _ in range(2):
        body()
    driver.call("cuEventRecord", events[0], stream)
    for event in events[1:]:
        body()
        driver.call("cuEventRecord", event, stream)
    driver.call("cuEventSynchronize", events[-1])
    times = []
    for before, after in zip(events, events[1:], strict=False):
        time = ctypes.c_float()
        driver.call("cuEventElapsedTime", byref(time), before, after)
        times.append(time.value)
    for event in events:
        driver.call("cuEventDestroy_v2", event)
    return times


def capability():
    """Major and minor."""
    numbers = []
    for attribute in (75, 76):
        number = ctypes.c_int()
        driver.call("cuDeviceGetAttribute", byref(number), attribute, 0)
        numbers.append(number.value)
    return tuple(numbers)


def description():
    """The device and the driver in a line."""
    driver.call("cuInit", 0)
    name, version = ctypes.create_string_buffer(100), ctypes.c_int()
    driver.call("cuDeviceGetName", name, len(name), 0)
    driver.call("cuDriverGetVersion", byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return f"{name.value.decode()}, capability {'%d.%d' % capability()}, driver of CUDA {cuda}"
