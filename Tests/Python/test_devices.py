# SPDX-License-Identifier: Apache-2.0
"""Tensors of a device, between Python and registered backends: handed on as they came."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
from device_array import CUDA, DeviceArray, Target, device_pages, exported
from reference_layer import LayerProblem
from test_dlpack import Exporter

from mla_prefill import (
    ContextChunk,
    MLAPrefillBackend,
    MLAPrefillBackendEnum,
    MLAPrefillLayer,
    PrefillMetadata,
    register_mla_prefill_backend,
)
from mla_prefill.flash_attn import FlashAttnPrefillBackend

MODEL = dict(
    num_heads=1, scale=1.0, kv_lora_rank=0, qk_nope_head_dim=2, qk_rope_head_dim=0, v_head_dim=2
)
ROWS = (3, 1, 2)


class Placement(ctypes.Structure):
    _fields_ = [
        ("device", ctypes.c_int32 * 2),
        ("data", ctypes.c_void_p * 5),
        ("stream", ctypes.c_void_p),
    ]


@pytest.fixture
def placed(cpp):
    """A backend in C++ that runs on CUDA device 1, and what its last run had."""
    cpp.register_placed(b"PLACED")
    cpp.last_placement.restype = ctypes.POINTER(Placement)
    backend = MLAPrefillBackendEnum.PLACED.get_class()(**MODEL, device="cuda:1")
    backend.prepare_metadata(PrefillMetadata(query_start_loc=[0, 3]))
    return backend, cpp.last_placement().contents


def arrays(count=3):
    return [DeviceArray(ROWS) for _ in range(count)]


def addresses(*tensors):
    return [tensor.address for tensor in tensors]


def test_cpp_backend_gets_what_came(placed):
    backend, seen = placed
    DeviceArray.made.clear()
    q, k, v, mine = arrays(4)
    out, lse = backend.run_prefill_new_tokens(q, k, v, True)
    assert tuple(seen.device) == CUDA and list(seen.data) == addresses(q, k, v, out, lse)
    assert DeviceArray.made == [(out, 0), (lse, -np.inf)]
    assert (out.shape, out.dtype, lse.shape, lse.device) == (ROWS, "float32", (1, 3), CUDA)
    # To CUDA the default stream is 1 in DLPack, to C it is NULL.
    assert seen.stream is None and q.streams == out.streams == lse.streams == [1]
    assert backend.run_prefill_new_tokens(q, k, v, False, out=mine) is mine
    assert list(seen.data) == [*addresses(q, k, v, mine), None]
    half = [DeviceArray(ROWS, "bfloat16") for _ in range(3)]
    assert backend.run_prefill_new_tokens(*half, False).dtype == "bfloat16"
    assert list(seen.data[:3]) == addresses(*half)
    chunk = ContextChunk(query_start_loc=[0, 3], cu_seq_lens=[0, 3])
    out, lse = backend.run_prefill_context_chunk(chunk, q, k, v)
    assert list(seen.data) == addresses(q, k, v, out, lse)
    assert backend.clone().device == backend.device == "cuda:1"


def test_rows_beyond_the_batch(placed):
    """Are not cleared from here, where nobody can write."""
    backend, seen = placed
    q, k, v = (DeviceArray((5, 1, 2)) for _ in range(3))
    out, lse = backend.run_prefill_new_tokens(q, k, v, True)
    assert list(seen.data[3:]) == addresses(out, lse) and lse.shape == (1, 5)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("device", [(2, 0), (10, 1), (1, 0), (3, 1)])
def test_two_devices(placed, place, device):
    backend, seen = placed
    tensors = arrays(4)
    tensors[place] = elsewhere = DeviceArray(ROWS, device=device)
    q, k, v, out = tensors
    name = ("q", "k", "v", "out")[place]
    with pytest.raises(ValueError, match=rf"^{name}\.device = .*: must be DLPack type 2, id 1, the device"):
        backend.run_prefill_new_tokens(q, k, v, False, out=out)
    assert elsewhere.streams == []


def test_numpy_on_a_device(placed):
    backend, _ = placed
    q, k, v = arrays()
    with pytest.raises(ValueError, match=r"^k\.device = cpu: must be DLPack type 2"):
        backend.run_prefill_new_tokens(q, np.ones(ROWS, np.float32), v, False)
    overlapping = DeviceArray(ROWS)
    overlapping.address = v.address
    with pytest.raises(ValueError, match=r"^out\.data = .* must not overlap v"):
        backend.run_prefill_new_tokens(q, k, v, False, out=overlapping)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("cuda:0", "does not run on that device"),
        ("rocm:1", "does not run on that device"),
        ("cuda:-1", r"^device = 'cuda:-1': must be"),
        ("cpu:1", r"^device = 'cpu:1': must be"),
        ("tpu", r"^device = 'tpu': must be"),
        ("cuda:", r"^device = 'cuda:': must be"),
        ("cuda:12345678901", r"^device = 'cuda:12345678901': must be"),
        ((7, 0), r"^device = \(7, 0\): must be"),
        (["cuda", 0], "^device: must be an integer, not str"),
    ],
)
def test_devices_that_are_none(placed, device, text):
    with pytest.raises((ValueError, TypeError), match=text):
        type(placed[0])(**MODEL, device=device)


@pytest.mark.parametrize("device", ["cuda", (2, 1), "rocm:0", SimpleNamespace(type="cuda", index=1)])
def test_devices_that_are_not_there(device):
    with pytest.raises(ValueError, match="NVIDIA's driver|do not run on ROCm"):
        FlashAttnPrefillBackend(**MODEL, device=device)
    assert FlashAttnPrefillBackend(**MODEL, device=None).device == "cpu"


class OnDevice(MLAPrefillBackend):
    supported_dtypes = ["float32"]
    supported_devices = ("cuda",)
    tensor_library = "numpy"
    seen = []

    @staticmethod
    def get_name():
        return "ON_DEVICE"

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        self.seen.append((self.device, q, k, v))
        return DeviceArray(v.shape), DeviceArray((1, 3))

    def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
        return self.run_prefill_new_tokens(q, k, v, True)


def test_python_backend_gets_what_came(cpp):
    register_mla_prefill_backend("ON_DEVICE")(OnDevice)
    base = device_pages(8)
    OnDevice.seen.clear()
    Target.written.clear()
    assert cpp.run_on_device(b"ON_DEVICE", ctypes.c_size_t(base)) == 0, cpp.last_message()
    assert len(OnDevice.seen) == 2
    for device, *tensors in OnDevice.seen:
        assert device == "cuda:1"
        for page, tensor in enumerate(tensors):
            assert tensor.__dlpack_device__() == CUDA and tensor.stream == 0x1234
            capsule = tensor.__dlpack__(stream=0x1234, max_version=(1, 0), dl_device=CUDA)
            assert exported(capsule) == (base + 4096 * page, *CUDA)
    places = [(base + 4096 * page, *CUDA) for page in (3, 4)]
    assert [where for where, _ in Target.written] == places * 2


def test_what_a_bare_tensor_refuses(cpp):
    register_mla_prefill_backend("ON_DEVICE")(OnDevice)
    OnDevice.seen.clear()
    assert cpp.run_on_device(b"ON_DEVICE", ctypes.c_size_t(device_pages(8))) == 0
    tensor = OnDevice.seen[0][1]
    assert not hasattr(tensor, "__array_interface__")
    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(tensor)
    assert tensor.__dlpack__(stream=-1)
    for keywords in ({}, {"stream": 5}, {"stream": 1}, {"stream": None}):
        with pytest.raises(BufferError, match=r"^stream = \d+: must be the run's, 4660"):
            tensor.__dlpack__(**keywords)
    with pytest.raises(BufferError, match="^copy = True"):
        tensor.__dlpack__(stream=0x1234, copy=True)
    with pytest.raises(BufferError, match=r"^dl_device = \(1, 0\): must be where it is, \(2, 1\)"):
        tensor.__dlpack__(stream=0x1234, dl_device=(1, 0))


def test_python_backends_of_the_cpu(cpp):
    class Silent(OnDevice):
        supported_devices = MLAPrefillBackend.supported_devices

    register_mla_prefill_backend("SILENT")(Silent)
    OnDevice.seen.clear()
    assert cpp.run_on_device(b"SILENT", ctypes.c_size_t(device_pages(8))) == 3
    assert b"backend SILENT does not run on that device" in cpp.last_message()
    assert OnDevice.seen == []


def test_a_layer_where_no_driver_is():
    """Nor memory that a driver knew."""
    for device, text in ((CUDA, "CUDA"), ((10, 0), r"device_type = 10: layers do not run on ROCm")):
        with pytest.raises(ValueError, match=text):
            MLAPrefillLayer(2, 1.0, 64, 128, 64, 128, DeviceArray((512, 64), "bfloat16", device))


def test_a_layer_on_the_cpu_of_another_number():
    problem = LayerProblem([5], [9])
    layer = MLAPrefillLayer(**problem.dimensions, kv_b_proj=Exporter(problem.kv_b_proj, (1, 3)))
    assert layer.device == "cpu"
    problem.check(layer.forward(**problem.tensors))
