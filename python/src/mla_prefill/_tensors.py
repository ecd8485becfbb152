# SPDX-License-Identifier: Apache-2.0
"""Tensors of the caller's kind. A library that nobody has imported has none."""

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mla_prefill import _core, _devices
from mla_prefill._dtypes import DType


#: Of an output that is divided by a scale; numpy has it from ml_dtypes.
QUANTIZED = "float8_e4m3fn"


def empty(like: Any, shape: tuple[int, ...], dtype: str | None = None) -> Any:
    """Uninitialised memory that runs can write, of the kind of ``like`` if that is possible.

    Args:
        dtype: a type's name; None: the type of ``like``.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        # Whatever the default device and type are.
        kind = getattr(torch, dtype) if dtype else like.dtype
        return torch.empty(shape, dtype=kind, device=like.device)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(like, numpy.ndarray):
        if dtype == QUANTIZED:
            return numpy.empty(shape, getattr(import_module("ml_dtypes"), dtype))
        return numpy.empty(shape, dtype or like.dtype)
    return _core.HostTensor(list(shape), _core.dtype_of_name(dtype or _core.describe(like, "q")[1]))


def empty_attention(like: Any, shape: tuple[int, ...], dtype: str | None = None) -> Any:
    """The same for the output of attention: of ``[batch, heads, rows, dim]`` a token's heads
    lie side by side, as who projects them next wants it."""
    if len(shape) != 4:
        return empty(like, shape, dtype)
    batch, heads, rows, dim = shape
    tensor = empty(like, (batch, rows, heads, dim), dtype)
    if isinstance(tensor, _core.HostTensor):
        return empty(like, shape, dtype)
    return tensor.swapaxes(1, 2)


def finished(like: Any, result: Any) -> Any:
    """What ``empty`` gave and a run filled, as the library of ``like`` hands it out."""
    if not isinstance(result, _core.HostTensor):
        return result
    namespace = getattr(like, "__array_namespace__", None)
    return result if namespace is None else namespace().from_dlpack(result)


def filled_integers(like: Any, shape: tuple[int, ...], value: int, name: str) -> Any:
    """A tensor of int32 of the kind of ``like``; TypeError that begins with ``name`` for a kind
    that is neither torch's nor numpy's."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        return torch.full(shape, value, dtype=torch.int32, device=like.device)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(like, numpy.ndarray):
        return numpy.full(shape, value, "int32")
    raise TypeError(f"{name}: must be given for what is neither a torch nor a numpy tensor")


@cache
def _is_installed(library: str) -> bool:
    return find_spec(library) is not None


def rows_of(tensor: Any, name: str = "q") -> int:
    """As `shape_of`; 0 without dimensions."""
    shape = shape_of(tensor, name)
    return shape[0] if shape else 0


def shape_of(tensor: Any, name: str) -> tuple[int, ...]:
    """TypeError or ValueError that begin with ``name`` for what is no tensor."""
    shape: Any = None
    for library, kind in (("torch", "Tensor"), ("numpy", "ndarray")):
        module = sys.modules.get(library)
        if module is not None and isinstance(tensor, getattr(module, kind)):
            try:
                shape = tensor.shape
            except RuntimeError:
                pass  # A nested tensor has none.
            break
    if shape is None:
        shape = _core.describe(tensor, name)[0]
    return tuple(shape)


def viewed(tensor: "_core.HostTensor | None", library: str | None) -> Any:
    """A view for a backend written in Python; the bare tensor where no library has its type.

    Args:
        library: "torch", "numpy", or None, which is torch where it has been imported.
    """
    if tensor is None:
        return None
    if _devices.is_bare(tensor, library):
        return tensor
    library = library or ("torch" if "torch" in sys.modules else "numpy")
    if not _is_installed(library):
        return tensor
    if library == "torch":
        return import_module("torch").from_dlpack(tensor)
    array = import_module("numpy").asarray(tensor)
    if tensor.dtype in ("float32", "float16"):
        return array
    if not _is_installed("ml_dtypes"):
        return tensor
    return array.view(getattr(import_module("ml_dtypes"), tensor.dtype))


def offsets(values: list[int], library: str | None) -> Any:
    """Row offsets for a backend written in Python."""
    library = library or ("torch" if "torch" in sys.modules else "numpy")
    if not _is_installed(library):
        return values
    if library == "torch":
        torch = import_module("torch")
        return torch.tensor(values, dtype=torch.int32, device="cpu")
    return import_module("numpy").array(values, "int32")


def store(name: str, target: Any, result: Any) -> None:
    """Copies what a backend returned to where its caller wants it."""
    if result is target:
        return
    shape = tuple(target.shape)
    try:
        got = tuple(result.shape)
    except (AttributeError, TypeError):
        returned = type(result).__name__
        raise TypeError(f"{name}: the backend returned {returned}, must be a tensor") from None
    _require_shape(name, got, shape)
    try:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(target, torch.Tensor):
            result = torch.as_tensor(result, device=target.device)
        elif isinstance(target, _core.HostTensor) and target.stream is not None:
            target = result.__array_namespace__().from_dlpack(target)
        # Some kernels pad v to the head dimension of q, and their output with it.
        target[...] = result[..., : shape[-1]]
    except MemoryError:
        raise
    except Exception as error:
        # Tensors without memory, or of objects: what their library says names nothing.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: the backend returned what cannot be copied: {error}") from error


def _require_shape(name: str, got: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(got) != len(shape) or got[:-1] != shape[:-1] or got[-1] < shape[-1]:
        raise ValueError(f"{name}: the backend returned shape {got}, must be {shape}")


def library_dtype(code: int) -> Any:
    """torch's type where torch has been imported, else one equal to everybody's."""
    if code == 0:
        return None
    name = _core.dtype_name(code)
    torch = sys.modules.get("torch")
    return DType(name) if torch is None else getattr(torch, name)
