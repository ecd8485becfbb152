# SPDX-License-Identifier: Apache-2.0
"""What one language registers, every other one in the process sees and runs."""

import ctypes
import os
import subprocess
import sys
import sysconfig
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from reference import Problem
from test_backends import backend_for

import mla_prefill
from mla_prefill import (
    MLAPrefillBackend,
    MLAPrefillBackendEnum,
    MLAPrefillConfig,
    _core,
    get_mla_prefill_backend,
    register_mla_prefill_backend,
)
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

HERE = Path(__file__).parent
INCLUDE = HERE.parents[1] / "include"
LIBRARY = mla_prefill.library_path()


def compiled(output, *arguments):
    subprocess.run(
        [
            "g++",
            "-std=c++17",
            "-O1",
            "-Wall",
            "-Wextra",
            f"-I{INCLUDE}",
            *arguments,
            LIBRARY,
            f"-Wl,-rpath,{os.path.dirname(LIBRARY)}",
            "-lpthread",
            "-o",
            output,
        ],
        check=True,
    )
    return output


@pytest.fixture(scope="session")
def cpp(tmp_path_factory):
    path = compiled(
        tmp_path_factory.mktemp("cpp") / "libone_registry.so",
        "-shared",
        "-fPIC",
        HERE / "one_registry.cpp",
    )
    library = ctypes.CDLL(str(path))
    library.last_message.restype = ctypes.c_char_p
    return library


# --- Registered in C++, run from Python ---------------------------------------


def test_cpp_backend_is_a_class(cpp):
    cpp.register_doubling(b"DOUBLING_MEMBER")
    member = MLAPrefillBackendEnum.DOUBLING_MEMBER
    assert member.get_path() == "mla_prefill.registered.DOUBLING_MEMBER"
    backend_class = member.get_class()
    assert issubclass(backend_class, MLAPrefillBackend) and backend_class is member.get_class()
    assert backend_class.get_name() == "DOUBLING"
    config = mla_prefill.MLAPrefillSelectorConfig("bfloat16")
    assert backend_class.validate_configuration(None, config) == ["only float32 is supported"]
    problem = Problem([3, 2])
    backend = backend_for(problem, "DOUBLING_MEMBER")
    out, lse = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, True)
    assert (out == 2 * problem.v).all() and (lse == np.arange(5)).all()
    with pytest.raises(ValueError, match="DOUBLING: knows no context"):
        backend.run_prefill_context_chunk(PrefillMetadataLike(), problem.q, problem.k, problem.v)


class PrefillMetadataLike:
    query_start_loc = cu_seq_lens = (0, 3, 5)


def test_cpp_backend_is_selected(cpp):
    cpp.register_doubling(b"DOUBLING_MEMBER")
    config = MLAPrefillConfig(backend="DOUBLING_MEMBER", dtype="float32")
    assert get_mla_prefill_backend(config) is MLAPrefillBackendEnum.DOUBLING_MEMBER.get_class()
    with pytest.raises(ValueError, match=r"Reason: \['only float32 is supported'\]"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="DOUBLING_MEMBER"))


def test_cpp_override_of_a_member(cpp):
    cpp.override_with_doubling(b"FLASH_ATTN")
    member = MLAPrefillBackendEnum.FLASH_ATTN
    assert member.is_overridden()
    assert member.get_path() == "mla_prefill.registered.FLASH_ATTN"
    problem = Problem([3, 2])
    backend = backend_for(problem, "FLASH_ATTN")
    out = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False)
    assert (out == 2 * problem.v).all()
    member.clear_override()
    assert member.get_path() == member.value
    problem.check(
        backend_for(problem, "FLASH_ATTN").run_prefill_new_tokens(
            problem.q, problem.k, problem.v, False
        )
    )


def test_python_class_derived_from_a_cpp_backend(cpp):
    cpp.register_doubling(b"DOUBLING_MEMBER")
    base = MLAPrefillBackendEnum.DOUBLING_MEMBER.get_class()

    @register_mla_prefill_backend(MLAPrefillBackendEnum.DOUBLING_MEMBER)
    class Negative(base):
        def run_prefill_new_tokens(self, *arguments, **keywords):
            out, lse = super().run_prefill_new_tokens(*arguments, **keywords)
            out *= -1
            return out, lse

    problem = Problem([3, 2])
    out, _ = backend_for(problem, "DOUBLING_MEMBER").run_prefill_new_tokens(
        problem.q, problem.k, problem.v, True
    )
    assert (out == -2 * problem.v).all()


def test_other_threads_run_while_a_kernel_does(cpp):
    cpp.register_waiting(b"WAITING")
    problem = Problem([3, 2])
    backend = backend_for(problem, "WAITING")
    other = threading.Thread(target=cpp.release)
    timer = threading.Timer(0.05, other.start)
    timer.start()
    out = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False)
    timer.join()
    other.join()
    assert (out == 2 * problem.v).all()


# --- Registered in Python, run from C++ ---------------------------------------


class Mean(MLAPrefillBackend):
    """Attention where all scores are 0."""

    supported_dtypes = ["float32"]
    tensor_library = "numpy"
    seen = []

    @staticmethod
    def get_name():
        return "MEAN"

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        self.seen.append((type(q), q.shape, out is not None, threading.get_ident()))
        result, lse = np.empty_like(v), np.empty((self.num_heads, len(v)), np.float32)
        offsets = self._prefill_metadata.query_start_loc
        for begin, end in pairwise(offsets):
            counts = np.arange(1, end - begin + 1)
            result[begin:end] = v[begin:end].cumsum(0) / counts[:, None, None]
            lse[:, begin:end] = np.log(counts)
        if out is not None:
            out[...] = result
            result = out
        return (result, lse) if return_softmax_lse else result

    def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
        raise NotImplementedError


class MeanInto(Mean):
    def supports_out(self):
        return True


class Padded(Mean):
    """As kernels do that know one head dimension only."""

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        result, lse = super().run_prefill_new_tokens(q, k, v, True)
        return np.concatenate([result, result], -1), lse


@pytest.mark.parametrize("backend", [Mean, MeanInto, Padded])
@pytest.mark.parametrize("threads", [1, 4])
def test_cpp_runs_a_python_backend(cpp, backend, threads):
    Mean.seen.clear()
    register_mla_prefill_backend("MEAN")(backend)
    assert cpp.run_backend(b"MEAN", threads) == 0, cpp.last_message()
    assert len(Mean.seen) == threads
    assert all(seen[:3] == (np.ndarray, (5, 1, 2), backend is MeanInto) for seen in Mean.seen)


def test_cpp_runs_a_python_backend_by_path(cpp):
    Mean.seen.clear()
    register_mla_prefill_backend("MEAN", f"{__name__}.Mean")
    assert cpp.run_backend(b"MEAN", 1) == 0
    assert Mean.seen
    register_mla_prefill_backend("MISSING", "no.such.module.Class")
    assert cpp.run_backend(b"MISSING", 1) == 3
    assert b"ModuleNotFoundError: No module named 'no'" in cpp.last_message()


def test_cpp_runs_an_override_that_falls_back(cpp):
    @register_mla_prefill_backend(MLAPrefillBackendEnum.CPU)
    class Counting(CPUSDPAMLAPrefillBackend):
        runs = 0

        def run_prefill_new_tokens(self, *arguments, **keywords):
            type(self).runs += 1
            return super().run_prefill_new_tokens(*arguments, **keywords)

    assert cpp.run_backend(b"CPU", 1) == 0, cpp.last_message()
    assert Counting.runs == 1


class Refusal(Exception):
    pass


@pytest.mark.parametrize(
    "error, status",
    [
        (ValueError("no"), 1),
        (TypeError("no"), 1),
        (NotImplementedError("no"), 2),
        (ImportError("no"), 3),
        (MemoryError("no"), 5),
        (RuntimeError("no"), 6),
        (Refusal("ä"), 6),
        (KeyboardInterrupt("no"), 6),
    ],
)
def test_exceptions(cpp, error, status):
    @register_mla_prefill_backend("RAISING")
    class Raising(Mean):
        def run_prefill_new_tokens(self, *arguments, **keywords):
            raise error

    assert cpp.run_backend(b"RAISING", 1) == status
    assert cpp.last_message().decode() == f"{type(error).__name__}: {error}"
    assert cpp.run_backend(b"RAISING", 2) == status
    # By way of the library, from Python: the exception itself.
    backend = _core.Backend(
        "RAISING",
        num_heads=1,
        scale=1.0,
        kv_lora_rank=0,
        qk_nope_head_dim=2,
        qk_rope_head_dim=0,
        v_head_dim=2,
        ignore_override=False,
    )
    backend.prepare_metadata([0, 1], [])
    row = np.zeros((1, 1, 2), np.float32)
    with pytest.raises(type(error)) as caught:
        backend.run_prefill_new_tokens(row, row, row, row.copy(), None, None)
    assert caught.value is error


@pytest.mark.parametrize(
    "result",
    [
        None,
        3,
        np.zeros((5, 1, 1)),
        (np.zeros((4, 1, 2)), np.zeros((1, 5))),
        (np.zeros((5, 1, 2)), None),
    ],
)
def test_wrong_results_are_errors(cpp, result):
    @register_mla_prefill_backend("WRONG")
    class Wrong(Mean):
        def run_prefill_new_tokens(self, *arguments, **keywords):
            return result

    assert cpp.run_backend(b"WRONG", 1) in (1, 6)
    assert cpp.last_message()


def test_removed_class_lives_as_long_as_its_objects():
    import gc
    import weakref

    def register():
        @register_mla_prefill_backend("SHORT")
        class Short(Mean):
            pass

        return weakref.ref(Short)

    reference = register()
    backend = _core.Backend(
        "SHORT",
        num_heads=1,
        scale=1.0,
        kv_lora_rank=0,
        qk_nope_head_dim=2,
        qk_rope_head_dim=0,
        v_head_dim=2,
        ignore_override=False,
    )
    MLAPrefillBackendEnum.SHORT.clear_override()
    gc.collect()
    assert reference() is not None
    backend.prepare_metadata([0, 1], [])
    del backend
    gc.collect()
    assert reference() is None


def test_embedding_program(tmp_path):
    paths = sysconfig.get_paths()
    directory, version = sysconfig.get_config_vars("LIBDIR", "LDVERSION")
    program = compiled(
        tmp_path / "embedding",
        HERE / "embedding.cpp",
        HERE / "one_registry.cpp",
        f"-I{paths['include']}",
        f"-L{directory}",
        f"-Wl,-rpath,{directory}",
        f"-lpython{version}",
        "-ldl",
        "-lm",
    )
    done = subprocess.run(
        [program],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "PYTHONHOME": sys.base_prefix,
        },
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and done.stdout.count("ok ") == 8
