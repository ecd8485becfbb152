"""A backend written in Python, registered through ctypes and run by the library.

The library is found as in examples/ctypes/prefill.py, whose structs are used.

SPDX-License-Identifier: Apache-2.0
"""

import ctypes
import pathlib
import sys
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int32, c_uint32, c_void_p

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples" / "ctypes"))
import prefill  # noqa: E402

LIBRARY = prefill.LIBRARY
LIBRARY.mla_set_last_error_message.argtypes = [c_char_p]
OK, INTERNAL = 0, 6
HEADS, TOKENS = 2, 5
DIMS = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}

CREATE = CFUNCTYPE(c_int32, c_void_p, POINTER(prefill.BackendConfig), POINTER(c_void_p))
RUN = CFUNCTYPE(c_int32, c_void_p, c_void_p, POINTER(prefill.NewTokensArgs))
RUN_CHUNK = CFUNCTYPE(c_int32, c_void_p, c_void_p, POINTER(prefill.ContextChunkArgs))


class VTable(prefill.Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved", c_uint32), ("context", c_void_p),
        ("destroy_context", c_void_p), ("backend_name", c_char_p), ("validate", c_void_p),
        ("create", CREATE), ("destroy", c_void_p), ("prepare_metadata", c_void_p),
        ("run_prefill_new_tokens", RUN), ("run_prefill_context_chunk", RUN_CHUNK),
        ("supports_out", c_void_p), ("supports_quant_output", c_void_p),
        ("workspace_size", c_void_p),
    ]


class Registration(prefill.Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved", c_uint32), ("class_path", c_char_p),
        ("vtable", POINTER(VTable)),
    ]


def rows(tensor):
    """A fp32 [tokens, heads, dim] tensor as an array."""
    shape = tuple(tensor.shape[:tensor.ndim])
    count = int(np.prod(shape))
    flat = (ctypes.c_float * count).from_address(tensor.data)
    return np.frombuffer(flat, np.float32).reshape(shape)


class Calls:
    """What the library asked of the backend."""

    def __init__(self):
        self.heads = None
        self.runs = 0
        self.fail = False

    def create(self, _context, config, instance):
        self.heads = config.contents.num_heads
        instance[0] = 1
        return OK

    def run(self, _context, _instance, arguments):
        if self.fail:
            LIBRARY.mla_set_last_error_message(b"told to fail")
            return INTERNAL
        self.runs += 1
        rows(arguments.contents.out.contents)[:] = 2 * rows(arguments.contents.v.contents)
        return OK

    def run_chunk(self, _context, _instance, _arguments):
        return INTERNAL


def refused(name, *arguments):
    """The message of a call that must fail."""
    try:
        prefill.call(name, *arguments)
    except RuntimeError as error:
        return str(error)
    raise AssertionError(f"{name} was accepted")


def check_backend():
    calls = Calls()
    table = VTable(
        backend_name=b"DOUBLES_V", create=CREATE(calls.create),
        run_prefill_new_tokens=RUN(calls.run), run_prefill_context_chunk=RUN_CHUNK(calls.run_chunk))
    registration = Registration(class_path=b"tests.Doubles", vtable=ctypes.pointer(table))
    prefill.call("mla_register_backend", b"FROM_PYTHON", byref(registration))
    backend = prefill.create(b"FROM_PYTHON", HEADS, 0.5, DIMS)
    assert calls.heads == HEADS

    offsets = np.array([0, TOKENS], np.int32)
    prefill.prepare(backend, {"query_start_loc": offsets}, [])
    random = np.random.default_rng(1)
    q, k = (random.standard_normal((TOKENS, HEADS, 12), np.float32) for _ in range(2))
    v = random.standard_normal((TOKENS, HEADS, 8), np.float32)
    out = np.zeros_like(v)
    prefill.run_new_tokens(backend, q=q, k=k, v=v, out=out)
    assert calls.runs == 1 and np.array_equal(out, 2 * v)

    calls.fail = True
    arguments = prefill.NewTokensArgs(**prefill.references(q=q, k=k, v=v, out=out))
    assert "told to fail" in refused("mla_run_prefill_new_tokens", backend, byref(arguments))
    LIBRARY.mla_backend_destroy(backend)
    prefill.call("mla_remove_backend", b"FROM_PYTHON")
    assert "FROM_PYTHON" in refused("mla_remove_backend", b"FROM_PYTHON")


def check_strided_views():
    """Slices of numpy arrays are run without a copy."""
    backend = prefill.create(b"CPU", HEADS, 0.5, DIMS)
    prefill.prepare(backend, {"query_start_loc": np.array([0, 2, TOKENS], np.int32)}, [])
    random = np.random.default_rng(2)
    wide = random.standard_normal((TOKENS, HEADS, 40), np.float32)
    q, k, v = wide[:, :, :12], wide[:, :, 12:24], wide[:, :, 24:32]
    dense = np.zeros((TOKENS, HEADS, 8), np.float32)
    strided = np.zeros((TOKENS, HEADS, 20), np.float32)
    prefill.run_new_tokens(backend, q=q.copy(), k=k.copy(), v=v.copy(), out=dense)
    prefill.run_new_tokens(backend, q=q, k=k, v=v, out=strided[:, :, 3:11])
    assert np.array_equal(dense, strided[:, :, 3:11])
    assert not strided[:, :, :3].any() and not strided[:, :, 11:].any()
    LIBRARY.mla_backend_destroy(backend)


def main():
    failures = 0
    for check in (check_backend, check_strided_views):
        try:
            check()
            print(f"ok ctypes {check.__name__}")
        except Exception as error:  # noqa: BLE001 - reported as this check's failure
            failures += 1
            print(f"not ok ctypes {check.__name__}: {error!r}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
