# SPDX-License-Identifier: Apache-2.0
"""Backends registered in Python, run from C++ in the same process."""

import gc
import os
import subprocess
import sys
import sysconfig
import weakref

import ml_dtypes
import numpy as np
import pytest
from mean_backend import Mean, one_head
from native_code import HERE, compiled

from mla_prefill import MLAPrefillBackendEnum, register_mla_prefill_backend
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend


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


def test_runs_that_know_no_out():
    @register_mla_prefill_backend("RETURNING")
    class Returning(Mean):
        def run_prefill_new_tokens(self, q, k, v, return_softmax_lse):
            return super().run_prefill_new_tokens(q, k, v, return_softmax_lse)

        def run_prefill_context_chunk(self, chunk, q, k, v):
            assert (chunk.seq_lens == [1, 3]).all() and chunk.max_seq_len == 3
            return v + 1, np.zeros((1, len(q)), np.float32)

    backend, offsets = one_head("RETURNING"), [0, 1, 4]
    backend.prepare_metadata(offsets, [])
    ones, lse = np.ones((4, 1, 2), np.float32), np.zeros((1, 4), np.float32)
    out = np.zeros_like(ones)
    backend.run_prefill_new_tokens(ones, ones, ones, out, lse, None, False)
    assert (out == 1).all()
    backend.run_prefill_context_chunk(-1, offsets, offsets, ones, ones, ones, out, lse, False)
    assert (out == 2).all()


def test_cpp_runs_a_python_backend_by_path(cpp):
    Mean.seen.clear()
    register_mla_prefill_backend("MEAN", "mean_backend.Mean")
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


def test_what_a_python_backend_may_write():
    @register_mla_prefill_backend("LOOKING")
    class Looking(MeanInto):
        writable = []

        def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
            self.writable += [tensor.flags.writeable for tensor in (q, k, v, out)]
            return super().run_prefill_new_tokens(q, k, v, return_softmax_lse, out)

    backend = one_head("LOOKING")
    backend.prepare_metadata([0, 1], [])
    row = np.ones((1, 1, 2), np.float32)
    backend.run_prefill_new_tokens(row, row, row, row.copy(), None, None, False)
    assert Looking.writable == [False, False, False, True]


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
