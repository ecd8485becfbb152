# SPDX-License-Identifier: Apache-2.0
"""Tensors of a device with torch: its current stream is a run's, and a run's its current one.
There is no device: what torch would do with one is noted."""

import ctypes
from contextlib import contextmanager

import pytest
import torch
from device_array import CUDA, DeviceArray, device_pages, exported

from mla_prefill import MLAPrefillBackend, _devices, register_mla_prefill_backend


class OnCuda(torch.Tensor):
    device = property(lambda self: torch.device("cuda:1"))


class View(DeviceArray):
    """What torch.from_dlpack would have made."""

    made = []

    def __init__(self, tensor):
        super().__init__(tensor.shape)
        self.stream = Cuda.current
        self.where = exported(tensor.__dlpack__(stream=0x1234, max_version=(1, 0)))
        self.made.append(self)

    def __setitem__(self, key, value):
        self.stored.append(value)


class Cuda:
    """torch.cuda's streams."""

    current = None

    @staticmethod
    @contextmanager
    def stream(stream):
        Cuda.current, before = stream, Cuda.current
        yield
        Cuda.current = before


@pytest.fixture
def cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda stream, device: (stream, device))
    monkeypatch.setattr(torch.cuda, "stream", Cuda.stream)
    monkeypatch.setattr(torch, "from_dlpack", View)
    View.made.clear()


def test_python_backend_runs_on_the_stream_of_the_run(cpp, cuda):
    @register_mla_prefill_backend("ON_TORCH")
    class OnTorch(MLAPrefillBackend):
        supported_devices = ("cuda",)
        seen = []

        @staticmethod
        def get_name():
            return "ON_TORCH"

        def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None):
            self.seen.append((q, k, v, Cuda.current))
            return DeviceArray(v.shape), DeviceArray((1, 3))

        def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
            return self.run_prefill_new_tokens(q, k, v, True)

    base = device_pages(8)
    assert cpp.run_on_device(b"ON_TORCH", ctypes.c_size_t(base)) == 0, cpp.last_message()
    assert [stream for *_, stream in OnTorch.seen] == [(0x1234, 1)] * 2
    assert all(view.stream == (0x1234, 1) for view in View.made)
    for q, k, v, _ in OnTorch.seen:
        assert [t.where for t in (q, k, v)] == [(base + 4096 * page, *CUDA) for page in range(3)]
    stored = [view.where[0] for view in View.made if view.stored]
    assert stored == [base + 4096 * page for page in (3, 4)] * 2
    assert Cuda.current is None


def test_current_stream_is_the_runs(monkeypatch):
    class Stream:
        cuda_stream = 77

    asked = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda of: asked.append(of) or Stream)
    assert _devices.current_stream(torch.ones(1)) is None
    assert _devices.current_stream(OnCuda()) == 77 and asked == [torch.device("cuda:1")]


def test_names_of_torch(monkeypatch):
    assert _devices.device_name(torch.device("cuda:3")) == "cuda:3"
    assert _devices.device_name(torch.device("cuda")) == "cuda:0"
    assert _devices.device_name(torch.device("cpu")) == "cpu"
    with pytest.raises(ValueError, match=r"^device = device\(type='meta'\): must be"):
        _devices.device_name(torch.device("meta"))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert _devices.device_name("cuda:1") == "rocm:1"


def test_device_of_vllm(monkeypatch):
    class Config:
        class device_config:
            device_type = "cuda"

    assert _devices.device_name(None, Config) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert _devices.device_name(None, Config) == "cuda:2"
    assert _devices.device_name("cpu", Config) == "cpu" == _devices.device_name(None, None)
