# SPDX-License-Identifier: Apache-2.0
"""Tensors whose numbers Python has as such: no other library is needed."""

import ctypes
import struct
from array import array
from collections.abc import Sequence
from math import prod
from random import Random

from mla_prefill import _core

DTYPES = ("bfloat16", "float16", "float32")
_FORMATS = {"float32": "f", "float16": "e"}


def empty(shape: Sequence[int], dtype: str) -> _core.HostTensor:
    """Memory, not initialised, rows dense."""
    return _core.HostTensor(list(shape), _core.dtype_of_name(dtype))


def random_tensor(
    random: Random, shape: Sequence[int], dtype: str, deviation: float = 1
) -> _core.HostTensor:
    """Numbers of a normal distribution, rounded to the type."""
    tensor = empty(shape, dtype)
    values = [random.gauss(0, deviation) for _ in range(prod(shape))]
    _write(tensor, _bytes_of(values, dtype))
    return tensor


def repeated_tensor(random: Random, shape: Sequence[int], dtype: str) -> _core.HostTensor:
    """The same for many of them, quickly: some thousands over and over."""
    count = prod(shape)
    # A prime, so that rows of no width are alike.
    part = _bytes_of([random.gauss(0, 1) for _ in range(8191)], dtype)
    size = count * len(part) // 8191
    tensor = empty(shape, dtype)
    _write(tensor, (part * (size // len(part) + 1))[:size])
    return tensor


def rows_of(tensor: _core.HostTensor) -> list[list[float]]:
    """Its numbers by the last dimension."""
    width = tensor.shape[-1]
    size = prod(tensor.shape)
    if tensor.dtype == "bfloat16":
        halves = struct.unpack(f"{size}H", _read(tensor, 2 * size))
        values = array("f", array("I", (half << 16 for half in halves)).tobytes()).tolist()
    else:
        form = f"{size}{_FORMATS[tensor.dtype]}"
        values = list(struct.unpack(form, _read(tensor, struct.calcsize(form))))
    return [values[begin : begin + width] for begin in range(0, size, width)]


def _bytes_of(values: Sequence[float], dtype: str) -> bytes:
    if dtype == "bfloat16":
        bits = array("I", array("f", values).tobytes())
        # To nearest, ties to even; no number here is near the largest one.
        return array("H", (each + 0x7FFF + (each >> 16 & 1) >> 16 for each in bits)).tobytes()
    return struct.pack(f"{len(values)}{_FORMATS[dtype]}", *values)


def _address(tensor: _core.HostTensor) -> int:
    address: int = tensor.__array_interface__["data"][0]
    return address


def _write(tensor: _core.HostTensor, data: bytes) -> None:
    ctypes.memmove(_address(tensor), data, len(data))


def _read(tensor: _core.HostTensor, size: int) -> bytes:
    return ctypes.string_at(_address(tensor), size)
