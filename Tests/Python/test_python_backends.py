# SPDX-License-Identifier: Apache-2.0
"""Backends registered in Python, run from C++ in the same process."""

import gc
import os
import subprocess
import sys
import sysconfig
import threading
import weakref
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from native_code import HERE, compiled

from mla_prefill import (
    MLAPrefillBackend,
    MLAPrefillBackendEnum,
    MLAPrefillConfig,
    _core,
    backends,
    get_mla_prefill_backend,
    register_mla_prefill_backend,
)
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend


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


def one_head(name):
    """A backend's object by way of the library, as C++ would have it."""
    return _core.Backend(
        name,
        num_heads=1,
        scale=1.0,
        kv_lora_rank=0,
        qk_nope_head_dim=2,
        qk_rope_head_dim=0,
        v_head_dim=2,
        ignore_override=False,
    )


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


def test_cpp_runs_a_layer_on_a_python_backend(cpp):
    Mean.seen.clear()

    @register_mla_prefill_backend("MEAN")
    class WithContext(Mean):
        chunks = []

        def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
            self.chunks.append((q.shape, k.shape, list(chunk.query_start_loc)))
            mean = np.broadcast_to(v.mean(0), (len(q), *v.shape[1:]))
            return mean, np.full((self.num_heads, len(q)), np.log(len(v)), np.float32)

    assert cpp.run_layer(b"MEAN") == 0, cpp.last_message()
    assert [seen[1] for seen in Mean.seen] == [(3, 1, 2)]
    assert WithContext.chunks == [((2, 1, 2), (3, 1, 2), [0, 2])]
    register_mla_prefill_backend(MLAPrefillBackendEnum.MEAN)(Mean)
    assert cpp.run_layer(b"MEAN") == 2
    assert b"NotImplementedError" in cpp.last_message()
    assert cpp.run_layer(b"CPU") == 0, cpp.last_message()


def test_quantized_run_of_a_python_backend():
    @register_mla_prefill_backend("QUANTIZING")
    class Quantizing(Mean):
        scales = []

        def supports_quant_output(self, quant_key):
            return quant_key == "float8_e4m3fn"

        def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
            self.scales.append(output_scale)
            out[...] = v / output_scale
            return out

    backend = one_head("QUANTIZING")
    backend.prepare_metadata([0, 1], [])
    row, out = np.ones((1, 1, 2), np.float32), np.zeros((1, 1, 2), ml_dtypes.float8_e4m3fn)
    backend.run_prefill_new_tokens(row, row, row, out, None, 0.25, False)
    assert Quantizing.scales == [0.25] and (out.astype(np.float32) == 4).all()


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
    backend = one_head("RAISING")
    backend.prepare_metadata([0, 1], [])
    row = np.zeros((1, 1, 2), np.float32)
    with pytest.raises(type(error)) as caught:
        backend.run_prefill_new_tokens(row, row, row, row.copy(), None, None, False)
    assert caught.value is error


def test_texts_that_c_would_cut(cpp):
    @register_mla_prefill_backend("TELLING")
    class Telling(Mean):
        @classmethod
        def validate_configuration(cls, device_capability, selector_config):
            return ["reason\0with more"]

        def run_prefill_new_tokens(self, *arguments, **keywords):
            raise ValueError("text\0with more")

    assert cpp.run_backend(b"TELLING", 1) == 1
    assert cpp.last_message().decode() == "ValueError: text\ufffdwith more"
    rows = {row.name: row for row in backends(MLAPrefillConfig())}
    assert rows["TELLING"].reasons == ("reason\ufffdwith more",)


@pytest.mark.parametrize(
    "result",
    [
        None,
        3,
        np.zeros((5, 1, 1)),
        (np.zeros((4, 1, 2)), np.zeros((1, 5))),
        (np.zeros((5, 1, 2)), None),
        (np.ndarray, np.ndarray),
        (np.full((5, 1, 2), object()), np.zeros((1, 5))),
        (np.zeros((5, 1, 2)), np.full((1, 5), object())),
    ],
)
def test_wrong_results_are_errors(cpp, result):
    @register_mla_prefill_backend("WRONG")
    class Wrong(Mean):
        def run_prefill_new_tokens(self, *arguments, **keywords):
            return result

    assert cpp.run_backend(b"WRONG", 1) == 1
    assert any(name in cpp.last_message() for name in (b"out: ", b"lse: ", b"result: "))


@pytest.mark.parametrize("library", ["jax", "", "torch.nn", 3, b"numpy", []])
def test_wrong_tensor_libraries_are_named(library):
    register_mla_prefill_backend("WRONG")(type("Wrong", (Mean,), {"tensor_library": library}))
    with pytest.raises((TypeError, ValueError), match="^tensor_library.*must be 'torch', 'numpy'"):
        one_head("WRONG")


@pytest.mark.parametrize("reasons", [None, 3, "text"])
def test_wrong_reasons_are_named(reasons):
    register_mla_prefill_backend("WRONG")(
        type("Wrong", (Mean,), {"validate_configuration": lambda *arguments: reasons})
    )
    text = f"validate_configuration: the backend returned {type(reasons).__name__}, must be a list"
    rows = {row.name: row for row in backends()}
    assert not rows["WRONG"].is_valid and text in rows["WRONG"].reasons[0]
    with pytest.raises(TypeError, match=f"^{text}"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="WRONG"))


def test_removed_class_lives_as_long_as_its_objects():
    def register():
        @register_mla_prefill_backend("SHORT")
        class Short(Mean):
            pass

        return weakref.ref(Short)

    reference = register()
    backend = one_head("SHORT")
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


class Stop(BaseException):
    """No Exception, as KeyboardInterrupt and SystemExit are none."""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), Stop()])
def test_what_is_no_exception_is_raised(error):
    def stop(*arguments):
        raise error

    register_mla_prefill_backend("LISTED")(type("Listed", (Mean,), {"is_available": stop}))
    register_mla_prefill_backend("ASKED")(type("Asked", (Mean,), {"supports_quant_output": stop}))
    # What fails after it takes nothing from it.
    register_mla_prefill_backend("LATER")(
        type("Later", (Mean,), {"is_available": classmethod(lambda cls: 1 / 0)})
    )
    float8 = _core.dtype_of_name("float8_e4m3fn")
    for call in (lambda: backends(), lambda: one_head("ASKED").supports_quant_output(float8)):
        with pytest.raises(type(error)) as caught:
            call()
        assert caught.value is error


def test_exceptions_of_questions_are_answers():
    def fail(*arguments):
        raise RuntimeError("said by the class")

    register_mla_prefill_backend("LISTED")(type("Listed", (Mean,), {"is_available": fail}))
    register_mla_prefill_backend("ASKED")(type("Asked", (Mean,), {"supports_quant_output": fail}))
    rows = {row.name: row for row in backends()}
    assert rows["LISTED"].reasons == ("RuntimeError: said by the class",)
    assert not one_head("ASKED").supports_quant_output(_core.dtype_of_name("float8_e4m3fn"))
