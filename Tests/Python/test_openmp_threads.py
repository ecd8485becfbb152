# SPDX-License-Identifier: Apache-2.0
"""Runs on the threads of an OpenMP library that the process has loaded.

Each program is a process of its own: a library cannot be unloaded, threads stay.
"""

import os
import subprocess
import sys

COMMON = """
import ctypes, os, threading
import numpy as np
import mla_prefill

def load_openmp():
    ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)

def threads():
    return len(os.listdir("/proc/self/task"))

mla_prefill.set_num_threads(3)
random = np.random.default_rng(7)
q, k, v = (random.standard_normal((900, 4, dim), np.float32) for dim in (192, 192, 128))

def run():
    backend = mla_prefill.MLAPrefillBackendEnum["CPU"].get_class()(
        num_heads=4, scale=0.07, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
        v_head_dim=128)
    backend.prepare_metadata(mla_prefill.PrefillMetadata(query_start_loc=[0, 700, 733, 733, 900]))
    out, lse = backend.run_prefill_new_tokens(q, k, v, return_softmax_lse=True)
    return out.tobytes() + lse.tobytes()
"""


def passes(program):
    done = subprocess.run(
        [sys.executable, "-c", COMMON + program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


def test_no_openmp_library():
    passes("""
assert mla_prefill.use_openmp_threads() is False
before = threads()
run()
assert threads() == before + 2
""")


def test_runs_have_the_same_bits_and_start_no_threads_of_the_librarys():
    passes("""
load_openmp()
assert mla_prefill.use_openmp_threads() is True
before = threads()
on_openmp = run()
# The team is as large as OpenMP makes its others, not as the run has pieces.
assert threads() == before + 3
assert run() == on_openmp and threads() == before + 3
assert mla_prefill.use_openmp_threads(False) is False
assert run() == on_openmp
assert threads() == before + 3 + 2
""")


def test_more_pieces_than_threads():
    passes("""
load_openmp()
mla_prefill.set_num_threads(64)
alone = run()
assert mla_prefill.use_openmp_threads()
assert run() == alone
""")


def test_a_forked_child_runs_on_threads_of_its_own():
    passes("""
load_openmp()
assert mla_prefill.use_openmp_threads()
expected = run()
child = os.fork()
if child == 0:
    os._exit(0 if run() == expected and threads() == 3 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
before = threads()
assert run() == expected and threads() == before
""")


def test_several_threads_run_at_once():
    passes("""
load_openmp()
assert mla_prefill.use_openmp_threads()
expected = run()
results = []
callers = [threading.Thread(target=lambda: results.extend(run() for _ in range(5)))
           for _ in range(4)]
for caller in callers: caller.start()
for caller in callers: caller.join()
assert len(results) == 20 and set(results) == {expected}
""")


def test_a_loop_of_the_hosts_own_stays():
    passes("""
library = ctypes.CDLL(mla_prefill.library_path())
Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
Loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, Task, ctypes.c_void_p)
loops = []

@Loop
def own_loop(context, count, task, task_context):
    loops.append(count)
    for index in range(count):
        task(task_context, index)

assert library.mla_set_parallel_for(own_loop, None) == 0
for _ in range(2):
    assert mla_prefill.use_openmp_threads(False) is False
    before = len(loops)
    run()
    assert len(loops) > before
library.mla_set_parallel_for(None, None)
""")
