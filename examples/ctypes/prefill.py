"""MLA prefill from Python with ctypes and numpy alone: no extension module.

Runs the recorded step of examples/c/prefill.c - new tokens, two context chunks,
the merges - and prints the errors against the recording.

    python3 prefill.py [dsv2_chunked.safetensors]

The library is found as ctypes finds any; MLA_PREFILL_LIBRARY names a file.

SPDX-License-Identifier: Apache-2.0
"""

import ctypes
import json
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_int64, c_uint32, c_void_p

import numpy as np

MAX_OUT_ERROR = 4e-3
MAX_LSE_ERROR = 1e-3

FLOAT32, FLOAT16, BFLOAT16 = 1, 2, 3
DEVICE_CPU = 1


class Struct(ctypes.Structure):
    """A struct of the header: its first field is its size."""

    def __init__(self, **fields):
        super().__init__(**fields)
        self.struct_size = ctypes.sizeof(self)


class Tensor(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("dtype", c_int32), ("data", c_void_p),
        ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
        ("reserved", c_uint32), ("shape", c_int64 * 4), ("strides", c_int64 * 4),
    ]


class SelectorConfig(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("dtype", c_int32), ("qk_nope_head_dim", c_int32),
        ("qk_rope_head_dim", c_int32), ("v_head_dim", c_int32), ("platform", c_int32),
        ("capability_major", c_int32), ("capability_minor", c_int32),
        ("batch_invariant", c_int32), ("ignore_overrides", c_int32), ("backend", c_char_p),
    ]


class ContextChunk(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("index", c_int32), ("num_requests", c_int32),
        ("reserved", c_uint32), ("query_start_loc", c_void_p), ("cu_seq_lens", c_void_p),
    ]


class PrefillMetadata(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("num_requests", c_int32), ("query_start_loc", c_void_p),
        ("chunks", POINTER(ContextChunk)), ("num_chunks", c_int32), ("reserved", c_uint32),
    ]


class BackendConfig(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("num_heads", c_int32), ("scale", c_double),
        ("kv_lora_rank", c_int32), ("qk_nope_head_dim", c_int32),
        ("qk_rope_head_dim", c_int32), ("v_head_dim", c_int32), ("max_isa", c_int32),
        ("ignore_override", c_int32),
    ]


class NewTokensArgs(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved", c_uint32), ("q", POINTER(Tensor)),
        ("k", POINTER(Tensor)), ("v", POINTER(Tensor)), ("out", POINTER(Tensor)),
        ("lse", POINTER(Tensor)), ("output_scale", c_void_p), ("workspace", c_void_p),
        ("workspace_size", c_int64), ("stream", c_void_p),
    ]


class ContextChunkArgs(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved", c_uint32), ("chunk", POINTER(ContextChunk)),
        ("q", POINTER(Tensor)), ("k", POINTER(Tensor)), ("v", POINTER(Tensor)),
        ("out", POINTER(Tensor)), ("lse", POINTER(Tensor)), ("workspace", c_void_p),
        ("workspace_size", c_int64), ("stream", c_void_p),
    ]


class MergeArgs(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved", c_uint32), ("output", POINTER(Tensor)),
        ("output_lse", POINTER(Tensor)), ("prefix_output", POINTER(Tensor)),
        ("prefix_lse", POINTER(Tensor)), ("suffix_output", POINTER(Tensor)),
        ("suffix_lse", POINTER(Tensor)), ("prefill_tokens_with_context", c_int64),
        ("output_scale", c_void_p), ("stream", c_void_p),
    ]


def load_library():
    library = ctypes.CDLL(os.environ.get("MLA_PREFILL_LIBRARY", "libmlaprefill.so.1"))
    for name in ("mla_version", "mla_cpu_summary", "mla_last_error_message", "mla_status_name"):
        getattr(library, name).restype = c_char_p
    library.mla_backend_destroy.argtypes = [c_void_p]
    library.mla_backend_destroy.restype = None
    return library


LIBRARY = load_library()


def call(name, *arguments):
    """Calls a function that returns a status; raises with its message."""
    status = getattr(LIBRARY, name)(*arguments)
    if status != 0:
        kind = LIBRARY.mla_status_name(status).decode()
        raise RuntimeError(f"{name}: {kind}: {LIBRARY.mla_last_error_message().decode()}")


def read_safetensors(path):
    """The arrays of a file (bf16 as uint16) and its metadata."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    types = {"BF16": np.uint16, "F32": np.float32, "I32": np.int32}
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], types[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return arrays, metadata


def view(array):
    """A tensor over an array, strides kept; uint16 stands for bf16."""
    dtype = {np.dtype(np.uint16): BFLOAT16, np.dtype(np.float16): FLOAT16,
             np.dtype(np.float32): FLOAT32}[array.dtype]
    tensor = Tensor(dtype=dtype, data=array.ctypes.data, device_type=DEVICE_CPU, ndim=array.ndim)
    for i in range(array.ndim):
        tensor.shape[i] = array.shape[i]
        tensor.strides[i] = array.strides[i] // array.itemsize
    return tensor


def as_float(array):
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array


def select(dims):
    config = SelectorConfig(dtype=BFLOAT16, capability_major=-1, capability_minor=-1, **dims)
    name = c_char_p()
    call("mla_select_backend", byref(config), byref(name))
    return name.value


def create(name, heads, scale, dims):
    config = BackendConfig(num_heads=heads, scale=scale, kv_lora_rank=512, **dims)
    backend = c_void_p()
    call("mla_backend_create", name, byref(config), byref(backend))
    return backend


def chunk_of(data, index):
    offsets = data[f"chunk{index}_query_start_loc"]
    return ContextChunk(
        index=index, num_requests=len(offsets) - 1, query_start_loc=offsets.ctypes.data,
        cu_seq_lens=data[f"chunk{index}_cu_seq_lens"].ctypes.data)


def prepare(backend, data, chunks):
    offsets = data["query_start_loc"]
    table = (ContextChunk * len(chunks))(*chunks)
    metadata = PrefillMetadata(
        num_requests=len(offsets) - 1, query_start_loc=offsets.ctypes.data, chunks=table,
        num_chunks=len(chunks))
    call("mla_prepare_metadata", backend, byref(metadata))


def references(**tensors):
    return {name: ctypes.pointer(view(array)) for name, array in tensors.items()}


def run_new_tokens(backend, **tensors):
    call("mla_run_prefill_new_tokens", backend, byref(NewTokensArgs(**references(**tensors))))


def run_context_chunk(backend, chunk, **tensors):
    arguments = ContextChunkArgs(chunk=ctypes.pointer(chunk), **references(**tensors))
    call("mla_run_prefill_context_chunk", backend, byref(arguments))


def merge(**tensors):
    arguments = MergeArgs(prefill_tokens_with_context=-1, **references(**tensors))
    call("mla_merge_attn_states", byref(arguments))


def report(name, out, lse, expected_out, expected_lse):
    """Prints the errors; whether they are small enough."""
    got, expected = as_float(out), as_float(expected_out[:len(out)])
    out_error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    lse_error = np.abs(lse - expected_lse[:, :lse.shape[1]]).max()
    good = bool(out_error <= MAX_OUT_ERROR and lse_error <= MAX_LSE_ERROR)
    print(f"  {name:9} out {out_error:.2e}   lse {lse_error:.2e}{'' if good else '   TOO FAR'}")
    return good


def run_step(backend, data):
    """New tokens, two context chunks, the merges; whether all results are good."""
    chunks = [chunk_of(data, 0), chunk_of(data, 1)]
    prepare(backend, data, chunks)
    out, lse = np.zeros_like(data["v_new"]), np.zeros_like(data["lse"])
    run_new_tokens(backend, q=data["q"], k=data["k_new"], v=data["v_new"], out=out, lse=lse)
    good = [report("suffix", out, lse, data["suffix_out"], data["suffix_lse"])]

    rows = int(data["chunk0_query_start_loc"][-1])
    parts = []
    for index, chunk in enumerate(chunks):
        part, part_lse = np.zeros_like(out[:rows]), np.zeros((lse.shape[0], rows), np.float32)
        run_context_chunk(
            backend, chunk, q=data["q"][:rows], k=data[f"chunk{index}_k"],
            v=data[f"chunk{index}_v"], out=part, lse=part_lse)
        good.append(report(f"chunk {index}", part, part_lse, data[f"chunk{index}_out"],
                           data[f"chunk{index}_lse"]))
        parts.append((part, part_lse))

    (first, first_lse), (second, second_lse) = parts
    merge(output=first, output_lse=first_lse, prefix_output=first, prefix_lse=first_lse,
          suffix_output=second, suffix_lse=second_lse)
    good.append(report("context", first, first_lse, data["context_out"], data["context_lse"]))
    merge(output=out[:rows], output_lse=lse[:, :rows], prefix_output=first, prefix_lse=first_lse,
          suffix_output=out[:rows], suffix_lse=lse[:, :rows])
    good.append(report("all", out, lse, data["out"], data["lse"]))
    return all(good)


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "Tests/Data/dsv2_chunked.safetensors"
    data, metadata = read_safetensors(path)
    dims = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    name = select(dims)
    print(f"mla_prefill {LIBRARY.mla_version().decode()}, {LIBRARY.mla_cpu_summary().decode()}")
    print(f"backend {name.decode()}, errors against the recording:")
    backend = create(name, data["q"].shape[1], float(metadata["scale"]), dims)
    good = run_step(backend, data)
    LIBRARY.mla_backend_destroy(backend)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
