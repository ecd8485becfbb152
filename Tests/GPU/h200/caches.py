# SPDX-License-Identifier: Apache-2.0
"""Tokens into a paged cache on device 0 and out of it: what the library does on the CPU, to the bit."""

import statistics
from ctypes import POINTER, byref, c_float, c_int32, c_int64, c_uint32, c_void_p, pointer

import numpy as np
from device import DTYPES, Tensor, milliseconds, prefill
from problems import numbers, offsets

RANK, ROPE, BLOCK_SIZE = 512, 64, 64
#: What a cache is of: its tensor's dtype, a slot's elements, cache_scale, cache_format.
FORMATS = {
    "bf16": ("bf16", RANK + ROPE, 0, 0),
    "fp16": ("fp16", RANK + ROPE, 0, 0),
    "fp8": ("fp8", RANK + ROPE, 0.05, 0),
    "fp8_ds_mla": ("fp8", 656, 0, 1),
}


class ConcatArgs(prefill.Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("cache_scale", c_float), ("kv_c_normed", POINTER(prefill.Tensor)),
        ("k_pe", POINTER(prefill.Tensor)), ("slot_mapping", c_void_p), ("num_slots", c_int64),
        ("kv_cache", POINTER(prefill.Tensor)), ("stream", c_void_p), ("cache_format", c_int32),
        ("reserved", c_uint32), ("k_pe_cache", POINTER(prefill.Tensor)),
    ]  # fmt: skip


class GatherArgs(prefill.Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("cache_scale", c_float), ("kv_cache", POINTER(prefill.Tensor)),
        ("k_pe_cache", POINTER(prefill.Tensor)), ("cache_format", c_int32), ("num_requests", c_int32),
        ("block_table", c_void_p), ("block_table_stride", c_int64), ("max_blocks", c_int32),
        ("reserved", c_uint32), ("cu_seq_lens", c_void_p), ("seq_starts", c_void_p),
        ("dst", POINTER(prefill.Tensor)), ("k_pe", POINTER(prefill.Tensor)), ("stream", c_void_p),
    ]  # fmt: skip


class HostTensor:
    """The same of the host's as `Tensor` of the device's; 0xFF at first."""

    def __init__(self, dtype, shape, _):
        self.dtype, self.values = dtype, np.full(shape, 0xFF, np.uint8).astype(DTYPES[dtype][1])
        self.values.view(np.uint8)[...] = 0xFF

    @property
    def address(self):
        return self.values.ctypes.data

    def upload(self, values):
        self.values[...] = values
        return self

    def download(self):
        return self.values

    def view(self):
        tensor = prefill.Tensor(
            dtype=DTYPES[self.dtype][0], data=self.address, device_type=prefill.DEVICE_CPU, ndim=self.values.ndim
        )
        for i, stride in enumerate(self.values.strides):
            tensor.shape[i], tensor.strides[i] = self.values.shape[i], stride // self.values.itemsize
        return tensor


class Caching:
    """Requests' tokens, put into blocks that lie anywhere, and taken out again from `starts` on.

    Args:
        kind: `Tensor` or `HostTensor`, where all of it is.
    """

    def __init__(self, kind, format, dtype, lengths, starts, stream, seed=0):
        random = np.random.default_rng(seed)
        self.cache_dtype, width, self.scale, self.format = FORMATS[format]
        self.kind, self.stream, self.lengths = kind, stream, np.array(lengths)
        counts = -(-self.lengths // BLOCK_SIZE)
        table = np.full((len(lengths), max(counts.max(), 1)), -1, np.int32)
        numbers_of = random.permutation(counts.sum() + 3)
        slots = []
        for request, (length, first) in enumerate(zip(lengths, offsets(counts), strict=False)):
            table[request, : counts[request]] = numbers_of[first : first + counts[request]]
            token = np.arange(length)
            slots.append(table[request, token // BLOCK_SIZE].astype(np.int64) * BLOCK_SIZE + token % BLOCK_SIZE)
        tokens = int(self.lengths.sum())
        self.rows = int((self.lengths - starts).sum())
        self.latents = self._tensor(dtype, (tokens, RANK), numbers(random, (tokens, RANK), dtype))
        self.rope = self._tensor(dtype, (tokens, ROPE), numbers(random, (tokens, ROPE), dtype))
        self.slots = self._integers(np.concatenate(slots))
        self.table, self.table_width = self._integers(table), table.shape[1]
        self.offsets = self._integers(offsets(self.lengths - starts))
        self.starts = self._integers(np.array(starts, np.int32))
        self.cache = kind(self.cache_dtype, (len(numbers_of), BLOCK_SIZE, width), stream)
        # Tokens behind the last stay as they are.
        self.gathered = kind(dtype, (self.rows + 2, RANK + ROPE), stream)

    def _tensor(self, dtype, shape, values):
        return self.kind(dtype, shape, self.stream).upload(values)

    def _integers(self, values):
        """As bytes, of whatever size."""
        values = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        return self._tensor("fp8", values.shape, values)

    def fill(self):
        arguments = ConcatArgs(
            cache_scale=self.scale, kv_c_normed=pointer(self.latents.view()), k_pe=pointer(self.rope.view()),
            slot_mapping=self.slots.address, num_slots=int(self.lengths.sum()), kv_cache=pointer(self.cache.view()),
            stream=self.stream, cache_format=self.format)  # fmt: skip
        prefill.call("mla_concat_and_cache_mla", byref(arguments))

    def gather(self):
        arguments = GatherArgs(
            cache_scale=self.scale, kv_cache=pointer(self.cache.view()), cache_format=self.format,
            num_requests=len(self.lengths), block_table=self.table.address, block_table_stride=self.table_width,
            max_blocks=self.table_width, cu_seq_lens=self.offsets.address, seq_starts=self.starts.address,
            dst=pointer(self.gathered.view()), stream=self.stream)  # fmt: skip
        prefill.call("mla_gather_and_maybe_dequant_cache", byref(arguments))


def difference(format, dtype, lengths, starts, stream):
    """What is wrong with the device's; None: nothing."""
    here, there = (Caching(kind, format, dtype, lengths, starts, on) for kind, on in
                   ((HostTensor, None), (Tensor, stream)))  # fmt: skip
    for each in (here, there):
        each.fill()
        each.gather()
    for name in ("cache", "gathered"):
        got, right = (np.ascontiguousarray(getattr(each, name).download()).view(np.uint8) for each in (there, here))
        if not np.array_equal(got, right):
            return f"{np.count_nonzero(got != right)} bytes of the {name} rows differ from the CPU's"
    return None


def speeds(tokens, stream, repeats):
    """Lines that tell how long it takes to gather so many tokens."""
    for format in FORMATS:
        caching = Caching(Tensor, format, "bf16", [tokens], [0], stream)
        caching.fill()
        time = statistics.median(milliseconds(stream, caching.gather, repeats))
        moved = tokens * (FORMATS[format][1] * np.dtype(DTYPES[caching.cache_dtype][1]).itemsize + (RANK + ROPE) * 2)
        yield f"gathering {tokens} tokens, {format} to bf16: {time:.3f} ms, {moved / time / 1e6:.0f} GB/s"
