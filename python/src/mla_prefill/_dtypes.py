# SPDX-License-Identifier: Apache-2.0
"""Element types by name, whichever library's they are."""

from typing import Any

from mla_prefill import _core


class DType(str):
    """An element type's name; equal to torch's and numpy's types of that name."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, dtype_name(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def dtype_name(dtype: Any) -> str:
    """``"bfloat16"`` for ``torch.bfloat16``, ``ml_dtypes.bfloat16``, ``"bfloat16"``, ..."""
    if isinstance(dtype, str):
        text = str.__str__(dtype)
    elif isinstance(dtype, type):
        text = dtype.__name__
    else:
        # numpy's have a name, torch's only a text.
        name = getattr(dtype, "name", None)
        text = name if isinstance(name, str) else dtype_text(dtype)
    return text.removeprefix("torch.")


def dtype_text(dtype: Any) -> str:
    """For messages: a type as it prints itself, anything else by its class alone."""
    return str(dtype) if _is_dtype(dtype) else type(dtype).__name__


def require_dtype(dtype: Any, name: str) -> None:
    """TypeError that begins with ``name`` unless it is an element type, of whichever library."""
    if not _is_dtype(dtype) and not isinstance(getattr(dtype, "name", None), str):
        raise TypeError(
            f"{name}: must be torch's, numpy's or a type's name, not {type(dtype).__name__}"
        )


def _is_dtype(dtype: Any) -> bool:
    return isinstance(dtype, (str, type)) or "dtype" in type(dtype).__name__.lower()


def with_dtype(text: str, dtype: Any) -> str:
    """A text of the library's about a type that it does not know, with the type's name."""
    if dtype_code(dtype) != 0:
        return text
    name = dtype_text(dtype)
    return text.replace("dtype None", f"dtype {name}").replace("dtype=None", f"dtype={name}")


def dtype_code(dtype: Any) -> int:
    """``MLA_DTYPE_*`` of a type; ``MLA_DTYPE_NONE`` for one that the header lacks."""
    return _core.dtype_of_name(dtype_name(dtype))
