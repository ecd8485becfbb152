# SPDX-License-Identifier: Apache-2.0
"""What layers on CUDA tensors refuse, and that they run afterwards."""

from types import SimpleNamespace

import cuda_driver as driver
import numpy as np
import pytest
from cuda_array import CudaArray
from layer_problems import TENSORS, layer_for, on_device, problem_of, table_of
from reference_layer import FP8

from mla_prefill import MLAPrefillLayer


def test_memory_elsewhere():
    problem = problem_of([5, 3], [9, 30])
    layer, here, there = layer_for(problem), on_device(problem), on_device(problem, 1)
    outputs = {"out": np.zeros((8, 2, 128), problem.q.dtype), "lse": np.zeros((2, 8), np.float32)}
    host = problem.tensors | {"block_table": table_of(problem)} | outputs
    here |= {name: CudaArray(array) for name, array in outputs.items()}
    there |= {name: CudaArray(array, 1) for name, array in outputs.items()}
    for name in (*TENSORS, *outputs, "block_table"):
        for elsewhere in (there, host):
            with pytest.raises(ValueError, match=rf"^{name}\.device = .*: must be DLPack type 2, id 0, the device"):
                layer.forward(**here | {name: elsewhere[name]})
        lying = CudaArray(host[name])
        right, lying.address = lying.address, there[name].address
        with pytest.raises(ValueError, match=rf"^{name}(\.data)? = 0x.*device 0, is device 1's"):
            layer.forward(**here | {name: lying})
        lying.address = right
    # A new output is where q is.
    with pytest.raises(ValueError, match=r"^q\.device = cpu: must be"):
        layer.forward(**here | {"q": problem.q, "out": None})
    with pytest.raises(ValueError, match=r"^q\.device = \(2, 1\): must be"):
        layer.forward(**here | {"q": there["q"], "out": None}, output_scale=1)
    layer.forward(**here)
    problem.check(here["out"].numpy(), here["lse"].numpy())


def test_the_cpus_layer():
    problem = problem_of([5], [9])
    layer = MLAPrefillLayer(**problem.dimensions, kv_b_proj=problem.kv_b_proj)
    calls = driver.number_of_calls()
    problem.check(layer.forward(**problem.tensors))
    assert driver.number_of_calls() == calls
    for name in TENSORS:
        with pytest.raises(ValueError, match=rf"^{name}\.device = .*: must be the CPU"):
            layer.forward(**problem.tensors | {name: on_device(problem)[name]})
    with pytest.raises(ValueError, match=r"^block_table\.device = .*: must be the CPU"):
        layer.forward(**problem.tensors | {"block_table": CudaArray(table_of(problem))})


def test_tables():
    problem = problem_of([5, 3], [9, 30])
    layer, tensors, table = layer_for(problem), on_device(problem), table_of(problem)
    no_columns = CudaArray(table[:, :0])
    for bad, text in (
        (problem.block_table, "^block_table"),
        (CudaArray(table.astype(np.int64)), "^block_table: must be of int32"),
        (CudaArray(table[0]), "^block_table: must have two dimensions"),
        (CudaArray(np.asfortranarray(table)), "^block_table: must have two dimensions, the last dense"),
        (CudaArray(table[:1]), "^block_table: has 1 rows, must have one for each of the 2 requests"),
        (CudaArray(np.broadcast_to(table[:1], table.shape)), "^block_table_stride = 0: must be at least"),
        (CudaArray(table[:, :1]), r"^context_lens\[0\] = 9: .*max_blocks \(1\)"),
        (no_columns, r"^context_lens\[0\] = 9: .*max_blocks \(0\)"),
        (None, "^block_table = NULL"),
    ):
        with pytest.raises((TypeError, ValueError), match=text):
            layer.forward(**tensors | {"block_table": bad})
    with pytest.raises(ValueError, match=r"^block_table_rows\[1\] = 2: must be 0 to 1"):
        layer.forward(**tensors, block_table_rows=[0, 2])
    # A dense cache has a block for each: a table without is not the same as none.
    dense = tensors | {"kv_cache": CudaArray(problem.kv_cache[:2])}
    with pytest.raises(ValueError, match=r"^context_lens\[0\] = 9: .*max_blocks \(0\)"):
        layer.forward(**dense | {"block_table": no_columns})
    # Where nobody has context, nobody looks.
    fresh = problem_of([5, 3], [0, 0])
    fresh.check(layer_for(fresh).forward(**on_device(fresh) | {"block_table": no_columns}).numpy())
    for name in ("query_start_loc", "context_lens", "context_starts", "block_table_rows"):
        numbers = CudaArray(np.zeros(3, np.int32))
        with pytest.raises(ValueError, match=rf"^{name}\.device = .*: must be the CPU"):
            layer.forward(**tensors | {name: numbers})
    problem.check(layer.forward(**tensors).numpy())


def test_creations():
    problem = problem_of([5], [9])
    far = CudaArray(problem.kv_b_proj, waits=False)
    scales = np.ones((512, 1), np.float32)
    quantized = {"kv_b_proj": CudaArray(problem.kv_b_proj.astype(FP8)), "dtype": "bfloat16"}
    narrow = {"kv_lora_rank": 72, "kv_b_proj": CudaArray(np.zeros((512, 72), problem.q.dtype))}

    def expect(text, **options):
        given = problem.dimensions | {"kv_b_proj": CudaArray(problem.kv_b_proj)} | options
        with pytest.raises((TypeError, ValueError), match=text):
            MLAPrefillLayer(**given)

    far._place = (2, 7)
    expect("device_id = 7: must be below 3", kv_b_proj=far)
    for kind in (10, 3, 8):
        far._place = (kind, 0)
        expect(rf"device_type = {kind}: ", kv_b_proj=far)
    expect(r"dtype = ", kv_b_proj=CudaArray(problem.kv_b_proj.astype(np.float32)))
    expect("does not run on CUDA devices", backend="CPU")
    expect("kv_lora_rank = 72: must be a multiple of 64", **narrow)
    expect(r"^weight_scales\.device = cpu: must be DLPack type 2, id 0", weight_scales=scales, **quantized)
    expect(r"weight_scales\.device_type = 1: must be 2", weight_scales=0.5, **quantized)


def test_what_is_no_tensor():
    problem = problem_of([5], [9])
    layer, tensors = layer_for(problem), on_device(problem)
    for name in TENSORS:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}"):
            layer.forward(**tensors | {name: "nothing"})
        if name != "kv_cache":
            with pytest.raises((TypeError, ValueError), match=rf"^{name}\.dtype"):
                layer.forward(**tensors | {name: CudaArray(problem.tensors[name].astype(np.float32))})
    with pytest.raises(ValueError, match="^q: NoneType has no __array_namespace__"):
        layer.forward(**tensors | {"q": None})


def test_a_captured_call(cupy):
    """Has no memory of the library's; nothing of it is in the graph."""
    problem = problem_of([5], [9])
    layer = layer_for(problem, 1)
    host = problem.tensors | {"block_table": table_of(problem), "out": np.zeros((5, 2, 128), problem.q.dtype)}
    arrays = {
        name: cupy.ndarray(value, 1, waits=False) if isinstance(value, np.ndarray) else value
        for name, value in host.items()
    } | {"query_start_loc": problem.queries}
    with driver.device(1):
        driver.call("cuCtxSynchronize")
        driver.call("cuStreamBeginCapture_v2", cupy.stream, 0)
        with pytest.raises(ValueError, match="^workspace = NULL: must be given while the stream is captured"):
            layer.forward(**arrays)
        driver.call("cuStreamEndCapture", cupy.stream, driver.Handle())
    layer.forward(**arrays)
    problem.check(arrays["out"].numpy(after=cupy.stream))


def test_a_library_without_fp8():
    problem = problem_of([5], [9])
    tensors = on_device(problem)
    names = SimpleNamespace(full=None, bfloat16="bfloat16")
    tensors["q"].__class__ = type("Array", (CudaArray,), {"__array_namespace__": lambda self: names})
    with pytest.raises(ValueError, match="^out: must be given, Array's library has no float8_e4m3fn"):
        layer_for(problem).forward(**tensors, output_scale=0.5)


def test_what_the_driver_refuses():
    problem = problem_of([5], [9])
    layer, tensors, weights = layer_for(problem), on_device(problem), CudaArray(problem.kv_b_proj)
    for error, kind in ((2, MemoryError), (719, RuntimeError)):
        driver.fail_next("cuLaunchKernel", error)
        with pytest.raises(kind, match="cuLaunchKernel"):
            layer.forward(**tensors, out=CudaArray(np.zeros((5, 2, 128), problem.q.dtype)))
    driver.fail_next("cuMemAlloc_v2", 2)
    with pytest.raises(MemoryError, match="cuMemAlloc"):
        MLAPrefillLayer(**problem.dimensions, kv_b_proj=weights)
    problem.check(layer.forward(**tensors).numpy())
