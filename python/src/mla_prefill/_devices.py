# SPDX-License-Identifier: Apache-2.0
"""Devices: "cpu", "cuda:1" or "rocm:0", as DLPack numbers them, and their streams."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mla_prefill import _core


CPU = "cpu"
#: By DLPack's numbers.
KINDS = {1: CPU, 2: "cuda", 10: "rocm"}
_NUMBERS = {kind: number for number, kind in KINDS.items()}
_NOTHING_TO_DO = nullcontext()


def device_name(device: Any, vllm_config: Any = None) -> str:
    """A device by its name: torch's, a text, or a pair of DLPack's.

    Args:
        device: None: the one that ``vllm_config`` speaks of, if any, else the CPU.

    Raises:
        TypeError, ValueError: the text begins with ``device``.
    """
    if device is None:
        device = _vllm_device(vllm_config)
    kind, index = _kind_and_index(device)
    torch = sys.modules.get("torch")
    if kind == "cuda" and torch is not None and torch.version.hip:
        kind = "rocm"
    if kind not in _NUMBERS or index < 0 or (kind == CPU and index > 0):
        raise ValueError(f"device = {device!r}: must be 'cpu', 'cuda', 'cuda:1' or alike")
    return CPU if kind == CPU else f"{kind}:{index}"


def _kind_and_index(device: Any) -> tuple[str, int]:
    """As they are named, right or wrong."""
    if isinstance(device, str):
        kind, _, digits = device.partition(":")
        return kind, _index(digits) if digits or device.endswith(":") else 0
    if isinstance(device, (tuple, list)) and len(device) == 2:
        number, index = (_core.integer(part, "device") for part in device)
        return KINDS.get(number, ""), index
    own = getattr(device, "type", None), getattr(device, "index", None)
    if isinstance(own[0], str) and (own[1] is None or isinstance(own[1], int)):
        return own[0], own[1] or 0
    raise TypeError(f"device: must be a device or its name, not {type(device).__name__}")


def _index(digits: str) -> int:
    # Longer ones are those of no device.
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) < 10 else -1


def device_pair(name: str) -> tuple[int, int]:
    """DLPack's type and id of a name of ``device_name``."""
    kind, _, index = name.partition(":")
    return _NUMBERS[kind], int(index or 0)


def _vllm_device(vllm_config: Any) -> str:
    kind = getattr(getattr(vllm_config, "device_config", None), "device_type", CPU)
    torch = sys.modules.get("torch")
    if kind != "cuda" or torch is None or not torch.cuda.is_available():
        return CPU
    return f"cuda:{torch.cuda.current_device()}"


def place_of(tensor: Any) -> tuple[int, int, int | None]:
    """DLPack's type and id of where a tensor is, and its current stream; the CPU if unknown."""
    torch, on_cpu = sys.modules.get("torch"), (_NUMBERS[CPU], 0, None)
    # First: a trace, which may begin here, cannot follow what torch says by DLPack.
    if torch is not None and isinstance(tensor, torch.Tensor) and tensor.device.type != "cuda":
        return on_cpu
    try:
        kind, index = map(int, tensor.__dlpack_device__())
    except Exception:  # What is wrong with it is told where its memory is asked for.
        return on_cpu
    # To some libraries the CPU is several.
    return on_cpu if kind == _NUMBERS[CPU] else (kind, index, current_stream(tensor))


def current_stream(tensor: Any) -> int | None:
    """The stream in whose order a tensor of a device's is ready; None: the default one."""
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch is not None and isinstance(tensor, torch.Tensor):
        if tensor.device.type != "cuda":
            return None
        return int(torch.cuda.current_stream(tensor.device).cuda_stream)
    if cupy is not None and isinstance(tensor, cupy.ndarray):
        return int(cupy.cuda.get_current_stream(tensor.device.id).ptr)
    return None


def await_contents(tensor: Any) -> None:
    """For calls without a stream, which what is on the default one has been waited for: until
    what torch's current one does is done. Others' libraries have the default one wait."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tensor, torch.Tensor) and tensor.device.type == "cuda":
        torch.cuda.current_stream(tensor.device).synchronize()


def is_bare(tensor: "_core.HostTensor", library: str | None) -> bool:
    """Whether a backend that wants that library's gets a tensor of a device's as it is."""
    return tensor.stream is not None and (library == "numpy" or "torch" not in sys.modules)


def on_stream(tensor: "_core.HostTensor", library: str | None) -> AbstractContextManager[Any]:
    """While it lasts, what torch puts on the tensor's device goes to the run's stream."""
    if tensor.stream is None or is_bare(tensor, library):
        return _NOTHING_TO_DO
    cuda, index = sys.modules["torch"].cuda, tensor.__dlpack_device__()[1]
    return cuda.stream(cuda.ExternalStream(tensor.stream, device=index))


def rows_of(tensor: Any) -> int:
    """Of what the library will judge; 0 without dimensions."""
    return next(iter(getattr(tensor, "shape", ())), 0)


def filled(like: Any, shape: tuple[int, ...], dtype: str | None, value: float) -> Any:
    """Memory where ``like`` is, of its kind.

    Args:
        dtype: a type's name; None: the type of ``like``.

    Raises:
        ValueError: its library cannot be asked for some.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        kind = getattr(torch, dtype) if dtype else like.dtype
        return torch.full(shape, value, dtype=kind, device=like.device)
    namespace = getattr(like, "__array_namespace__", None)
    if namespace is None:
        raise ValueError(
            f"q: {type(like).__name__} has no __array_namespace__ to make outputs on its device"
        )
    arrays = namespace()
    kind = getattr(arrays, dtype, None) if dtype else like.dtype
    if kind is None:
        raise ValueError(f"out: must be given, {type(like).__name__}'s library has no {dtype}")
    return arrays.full(shape, value, dtype=kind, device=like.device)
