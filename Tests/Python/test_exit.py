# SPDX-License-Identifier: Apache-2.0
"""Programs that end while other threads are inside a call."""

import subprocess
import sys

import pytest
from native_code import HERE, compiled

HEADER = """
import ctypes, sys, threading, time
import numpy as np
import mla_prefill as m
class Zeros(m.MLAPrefillBackend):
    supported_dtypes = ["float32"]
    tensor_library = "numpy"
    @staticmethod
    def get_name(): return "ZEROS"
    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        out = np.zeros(v.shape, np.float32)
        return (out, np.zeros((1, len(q)), np.float32)) if return_softmax_lse else out
    def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
        raise NotImplementedError
m.register_mla_prefill_backend("ZEROS")(Zeros)
rows = np.zeros((4, 1, 8), np.float32)
backend = m.MLAPrefillBackendEnum.CPU.get_class()(1, 0.1, 8, 8, 0, 8)
backend.prepare_metadata(m.PrefillMetadata(query_start_loc=[0, 4]))
def layer(name):
    return m.MLAPrefillLayer(1, 0.1, 8, 8, 0, 8, np.ones((16, 8), np.float32), backend=name)
on_python = layer("ZEROS")
class Exporter:
    def __dlpack__(self, **keywords): return rows.__dlpack__(**keywords)
    def __dlpack_device__(self): return rows.__dlpack_device__()
exporter = Exporter()
class Number:
    def __init__(self, value): self.value = value
    def __index__(self): return self.value + sum([0] * 50)
offsets = [Number(0), Number(4)]
sys.setswitchinterval(1e-4)
"""
THREADS = """
def loop():
    while True: work()
for _ in range(4): threading.Thread(target=loop, daemon=True).start()
time.sleep(0.1)
"""


def ends_well(program, *arguments):
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "backend.run_prefill_new_tokens(rows, rows, rows, True)",
        "backend.run_prefill_new_tokens(exporter, exporter, exporter, True, out=rows.copy())",
        "backend.prepare_metadata(m.PrefillMetadata(query_start_loc=offsets))",
        "on_python.forward(rows, rows[:, 0], None)",
        "layer('CPU'), backend.clone(), m.trim(), m.set_num_threads(2)",
        "m.backends(m.MLAPrefillConfig(dtype='float32'))",
        "m.get_mla_prefill_backend(m.MLAPrefillConfig(backend='CPU'))",
    ],
)
def test_daemon_threads(call):
    ends_well(f"{HEADER}def work(): {call}\n{THREADS}")


def test_threads_of_c_code(tmp_path):
    library = compiled(tmp_path / "libendless.so", "-shared", "-fPIC", HERE / "endless_runs.cpp")
    ends_well(
        HEADER + "assert ctypes.CDLL(sys.argv[1]).start_endless_runs() == 0; time.sleep(0.1)",
        str(library),
    )
