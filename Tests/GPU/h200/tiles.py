# SPDX-License-Identifier: Apache-2.0
"""The kernels of sm_90a, which the library does not choose yet: launched from here, by the
structs of mla_cuda_kernels.h, so that they can be checked and measured."""

import ctypes
import os
from ctypes import byref, c_float, c_int, c_longlong, c_uint, c_void_p
from pathlib import Path

from device import driver

#: Written by `make cubins`.
IMAGE = os.environ.get(
    "MLA_TILES_IMAGE", str(Path(__file__).resolve().parents[3] / ".build/nvrtc/sm_90a.cubin")
)
TILE, THREADS, MOST_REQUESTS = 128, 384, 128
_MAP_BYTES, _ALIGNMENT = 128, 64
_BFLOAT16, _FLOAT16, _SWIZZLE_128, _PROMOTION_256 = 9, 6, 3, 3
_SHARED_BYTES_ATTRIBUTE = 8
#: MLA_DTYPE_*
_OUT_TYPES = {"bf16": 3, "fp16": 2}


class _Rows(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("token_stride", c_longlong), ("head_stride", c_longlong)]


class _LSE(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("head_stride", c_longlong)]


class _Request(ctypes.Structure):
    _fields_ = [(name, c_int) for name in ("first_tile", "query_row", "query_count", "key_row", "key_count")]


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, _Rows) for name in ("q", "k", "v", "out")), ("lse", _LSE), ("scale_log2", c_float),
        ("out_multiplier", c_float), ("out_type", c_int), ("is_causal", c_int), ("request_count", c_int),
        ("reserved", c_int), ("requests", _Request * MOST_REQUESTS),
    ]


def are_there(capability):
    return capability == (9, 0) and os.path.exists(IMAGE)


def _rows(tensor):
    view = tensor.view()
    return _Rows(view.data, view.strides[0], view.strides[1])


class TileBackend:
    """As device.Backend, for at most 128 requests of one dtype."""

    def __init__(self, heads, nope, rope, value, dtype="bf16"):
        self.heads, self.qk, self.value, self.dtype = heads, nope + rope, value, dtype
        self.scale = self.qk**-0.5
        with open(IMAGE, "rb") as file:
            image = file.read() + b"\0"
        library, self._kernel = c_void_p(), c_void_p()
        driver.call("cuLibraryLoadData", byref(library), image, None, None, 0, None, None, 0)
        name = f"mla_attend_tiles_{dtype}_{self.qk}_{value}".encode()
        driver.call("cuLibraryGetKernel", byref(self._kernel), library, name)
        # As attention_kernels.c has it.
        self._shared_bytes = TILE * (3 * self.qk + 2 * value) * 2 + 9 * 8
        driver.call("cuKernelSetAttribute", _SHARED_BYTES_ATTRIBUTE, self._shared_bytes, self._kernel, 0)

    def prepare(self, queries, keys=None):
        self._is_causal, keys = keys is None, queries if keys is None else keys
        self._requests, self._tiles = [], 0
        for i in range(len(queries) - 1):
            count = int(queries[i + 1] - queries[i])
            if count == 0:
                continue
            span = int(queries[i]), count, int(keys[i]), int(keys[i + 1] - keys[i])
            self._requests.append(_Request(self._tiles, *span))
            self._tiles += -(-count // TILE)

    def run(self, stream, **tensors):
        if self._tiles == 0:
            return
        # Maps come first, at a multiple of their alignment.
        memory = ctypes.create_string_buffer(3 * _MAP_BYTES + ctypes.sizeof(_Attention) + 2 * _ALIGNMENT)
        start = -(-ctypes.addressof(memory) // _ALIGNMENT) * _ALIGNMENT
        for i, name in enumerate("qkv"):
            self._encode(start + i * _MAP_BYTES, tensors[name])
        attention = _Attention.from_address(start + 3 * _MAP_BYTES)
        for name in ("q", "k", "v", "out"):
            setattr(attention, name, _rows(tensors[name]))
        lse = tensors["lse"].view()
        attention.lse = _LSE(lse.data, lse.strides[0])
        attention.scale_log2, attention.out_multiplier = self.scale * 1.4426950408889634, 1
        attention.out_type = _OUT_TYPES[self.dtype]
        attention.is_causal, attention.request_count = self._is_causal, len(self._requests)
        attention.requests[: len(self._requests)] = self._requests
        parameters = (c_void_p * 1)(start)
        driver.call(
            "cuLaunchKernel", self._kernel, self._tiles, self.heads, 1, THREADS, 1, 1, self._shared_bytes,
            stream, parameters, None)

    def _encode(self, address, tensor):
        view = tensor.view()
        rows, heads, width = tensor.shape
        sizes = (ctypes.c_ulonglong * 3)(width, heads, rows)
        strides = (ctypes.c_ulonglong * 2)(2 * view.strides[1], 2 * view.strides[0])
        box, ones = (c_uint * 3)(64, 1, TILE), (c_uint * 3)(1, 1, 1)
        driver.call(
            "cuTensorMapEncodeTiled", address, _BFLOAT16 if self.dtype == "bf16" else _FLOAT16, 3, view.data,
            sizes, strides, box, ones, 0, _SWIZZLE_128, _PROMOTION_256, 0)
