# SPDX-License-Identifier: Apache-2.0
"""Layers on device 0: from queries, latents and a paged cache to outputs, against float64."""

import statistics
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p, pointer

import numpy as np
from caches import FORMATS, RANK, ROPE, Caching
from device import CUDA, DTYPES, Tensor, milliseconds, prefill
from problems import numbers, offsets

NOPE, VALUE = 128, 128
#: Relative to the norm, and of lse absolute: keys and values are rounded before they are read.
OUT_BOUND, LSE_BOUND = {"bf16": 7e-3, "fp16": 1.5e-3}, {"bf16": 1e-2, "fp16": 2e-3}


class LayerConfig(prefill.Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("num_heads", c_int32), ("scale", c_double),
        *((name, c_int32) for name in (
            "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "max_isa", "dtype")),
        ("backend", c_char_p), ("kv_b_proj", POINTER(prefill.Tensor)), ("cache_dtype", c_int32),
        ("cache_scale", c_float), ("workspace_bound", c_int64), ("algorithm", c_int32),
        ("cache_format", c_int32), ("weight_scales", POINTER(prefill.Tensor)), ("device_type", c_int32),
        ("device_id", c_int32), ("weight_block_rows", c_int32), ("weight_block_columns", c_int32),
    ]  # fmt: skip


class ForwardArgs(prefill.Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("num_requests", c_int32), ("query_start_loc", c_void_p), ("context_lens", c_void_p),
        *((name, POINTER(prefill.Tensor)) for name in ("q", "kv_c_normed", "k_pe", "kv_cache")),
        ("block_table", c_void_p), ("block_table_stride", c_int64), ("max_blocks", c_int32), ("reserved", c_uint32),
        ("out", POINTER(prefill.Tensor)), ("lse", POINTER(prefill.Tensor)), ("workspace", c_void_p),
        ("workspace_size", c_int64), ("stream", c_void_p), ("output_scale", c_void_p),
        ("k_pe_cache", POINTER(prefill.Tensor)), ("context_starts", c_void_p), ("block_table_rows", c_void_p),
        ("num_table_rows", c_int64), ("flags", c_uint64),
    ]  # fmt: skip


def _float64(values):
    return prefill.as_float(values).astype(np.float64)


class LayerProblem:
    """Requests with so many new tokens, each behind a context in a cache of that format."""

    def __init__(self, heads, queries, contexts, format, dtype, stream, seed=0):
        random = np.random.default_rng(seed)
        self.heads, self.dtype, self.format, self.stream = heads, dtype, format, stream
        self.queries, self.contexts, self.contexts_at = offsets(queries), np.array(contexts, np.int32), offsets(contexts)
        rows = int(self.queries[-1])
        shapes = {"q": (rows, heads, NOPE + ROPE), "kv_c_normed": (rows, RANK), "k_pe": (rows, ROPE)}
        self.hosts = {name: numbers(random, shape, dtype) for name, shape in shapes.items()}
        self.tensors = {name: Tensor(dtype, host.shape, stream).upload(host) for name, host in self.hosts.items()}
        self.tensors["out"] = Tensor(dtype, (rows, heads, VALUE), stream)
        self.tensors["lse"] = Tensor("fp32", (heads, rows), stream)
        self.cached = Caching(Tensor, format, dtype, contexts, [0] * len(contexts), stream, seed)
        self.cached.fill()
        # Of powers of two, so that they are exact: sums of RANK products are about 1.
        self.weights = random.choice([-(2.0**-4), -(2.0**-5), 2.0**-5, 2.0**-4], (heads * (NOPE + VALUE), RANK))
        self._raw = c_void_p()
        self._create()

    def _create(self):
        narrow = self.weights.astype(np.float16)
        if self.dtype == "bf16":
            narrow = (self.weights.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        tensor = Tensor(self.dtype, narrow.shape, self.stream).upload(narrow)
        config = LayerConfig(
            num_heads=self.heads, scale=(NOPE + ROPE) ** -0.5, kv_lora_rank=RANK, qk_nope_head_dim=NOPE,
            qk_rope_head_dim=ROPE, v_head_dim=VALUE, backend=b"FLASH_ATTN", kv_b_proj=pointer(tensor.view()),
            cache_dtype=DTYPES[FORMATS[self.format][0]][0], cache_scale=self.cached.scale,
            cache_format=self.cached.format, device_type=CUDA)  # fmt: skip
        prefill.call("mla_layer_create", byref(config), byref(self._raw))

    def __del__(self):
        prefill.LIBRARY.mla_layer_destroy(self._raw)

    def run(self):
        table = self.cached.table
        arguments = ForwardArgs(
            num_requests=len(self.contexts), query_start_loc=self.queries.ctypes.data,
            context_lens=self.contexts.ctypes.data, kv_cache=pointer(self.cached.cache.view()),
            block_table=table.address, block_table_stride=self.cached.table_width, max_blocks=self.cached.table_width,
            stream=self.stream, **{name: pointer(tensor.view()) for name, tensor in self.tensors.items()})  # fmt: skip
        prefill.call("mla_layer_forward", self._raw, byref(arguments))

    def check(self):
        """Says what is wrong with the first and the last head of each request; None: nothing."""
        self.cached.gather()
        stored = _float64(self.cached.gathered.download())
        out, lse = _float64(self.tensors["out"].download()), self.tensors["lse"].download()
        difference = norm = worst = 0.0
        for request in range(len(self.contexts)):
            first, last = self.queries[request : request + 2]
            for head in {0, self.heads - 1}:
                expected, expected_lse = self._expected(request, head, stored)
                difference += ((out[first:last, head] - expected) ** 2).sum()
                norm += (expected**2).sum()
                worst = max(worst, np.abs(lse[head, first:last] - expected_lse).max(initial=0))
        self.errors = (difference / norm) ** 0.5, worst
        if not (np.isfinite(out).all() and np.isfinite(lse).all()):
            return "rows are not written, or not finite"
        if not self.errors[0] <= OUT_BOUND[self.dtype] or not worst <= LSE_BOUND[self.dtype]:
            return f"out is off by {self.errors[0]:.1e}, lse by {worst:.1e}"
        return None

    def _expected(self, request, head, stored):
        first, last = self.queries[request : request + 2]
        begin, context = self.contexts_at[request], self.contexts[request]
        new = np.concatenate([_float64(self.hosts[name][first:last]) for name in ("kv_c_normed", "k_pe")], 1)
        tokens = np.concatenate([stored[begin : begin + context], new])
        of_head = self.weights[head * (NOPE + VALUE) : (head + 1) * (NOPE + VALUE)]
        projected = tokens[:, :RANK] @ of_head.T
        keys = np.concatenate([projected[:, :NOPE], tokens[:, RANK:]], 1)
        scores = _float64(self.hosts["q"][first:last, head]) @ keys.T * (NOPE + ROPE) ** -0.5
        scores[np.arange(len(tokens)) > context + np.arange(last - first)[:, None]] = -np.inf
        largest = scores.max(1, keepdims=True)
        weights = np.exp(scores - largest)
        sums = weights.sum(1, keepdims=True)
        return weights @ projected[:, NOPE:] / sums, (np.log(sums) + largest)[:, 0]


def layer_times(heads, queries, contexts, formats, stream, repeats):
    """By format, the median of so many runs in bf16."""
    for format in formats:
        problem = LayerProblem(heads, queries, contexts, format, "bf16", stream)
        yield format, statistics.median(milliseconds(stream, problem.run, repeats))
