# SPDX-License-Identifier: Apache-2.0
"""What a backend is chosen for and judged by: a dtype, head dimensions, a device."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from mla_prefill import _core
from mla_prefill._dtypes import dtype_code, require_dtype


class Platform(IntEnum):
    """Where the tensors are."""

    AUTO = 0
    CPU = 1
    CUDA = 2
    ROCM = 3


@dataclass(frozen=True, kw_only=True)
class MLADimensions:
    """A model's head dimensions; a query has ``qk_nope_head_dim + qk_rope_head_dim``."""

    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    def __str__(self) -> str:
        return (
            f"(qk_nope_head_dim={self.qk_nope_head_dim}, "
            f"qk_rope_head_dim={self.qk_rope_head_dim}, v_head_dim={self.v_head_dim})"
        )


HEAD_DIMENSIONS = tuple(field.name for field in fields(MLADimensions))


class MLAPrefillSelectorConfig(NamedTuple):
    """What a backend must serve; hashable."""

    #: torch's, numpy's, or a type's name.
    dtype: Any
    mla_dimensions: MLADimensions = MLADimensions(
        qk_nope_head_dim=0, qk_rope_head_dim=0, v_head_dim=0
    )
    #: AUTO: that of the capability it is judged with, the CPU without one.
    platform: Platform = Platform.AUTO
    #: Whether results must not depend on the batch.
    batch_invariant: bool = False

    def __repr__(self) -> str:
        return f"MLAPrefillSelectorConfig(dtype={self.dtype}, mla_dimensions={self.mla_dimensions})"


@dataclass(frozen=True, kw_only=True)
class MLAPrefillConfig:
    """What an engine that is not vLLM asks ``get_mla_prefill_backend`` for."""

    #: torch's, numpy's, or a type's name.
    dtype: Any = "bfloat16"
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    #: An explicit choice, a member or its name; "auto": automatic; None:
    #: MLA_PREFILL_BACKEND, else automatic.
    backend: Enum | str | None = None
    platform: Platform = Platform.AUTO
    #: (major, minor); None: not known. Not used on the CPU.
    device_capability: tuple[int, int] | None = None
    #: Whether results must not depend on the batch.
    batch_invariant: bool = False

    def selector_config(self) -> MLAPrefillSelectorConfig:
        """The part that backends judge."""
        return MLAPrefillSelectorConfig(
            dtype=self.dtype,
            mla_dimensions=MLADimensions(**{name: getattr(self, name) for name in HEAD_DIMENSIONS}),
            platform=self.platform,
            batch_invariant=self.batch_invariant,
        )

    def library_config(self) -> "_core.SelectorConfig":
        """The same for the library."""
        # Backends are asked with None for a type that the header lacks; users are not.
        require_dtype(self.dtype, "dtype")
        name = backend_name(self.backend)
        return library_config(self.selector_config(), self.device_capability, backend=name)


def backend_name(backend: Any) -> str | None:
    """Of a member, ours or vLLM's, or its name; None for None."""
    name = backend if isinstance(backend, str) else getattr(backend, "name", None)
    if name is None and backend is not None:
        raise TypeError(
            "backend: must be a member of MLAPrefillBackendEnum, its name or None, not "
            + type(backend).__name__
        )
    return name


def library_config(
    config: MLAPrefillSelectorConfig,
    device_capability: Any,
    *,
    ignore_overrides: bool = False,
    backend: str | None = None,
) -> "_core.SelectorConfig":
    """A configuration for the library.

    Args:
        device_capability: ``(major, minor)``, by name or by place; None: not known.
    """
    dimensions = part(config, "mla_dimensions", "selector_config")
    sizes = {name: part(dimensions, name, "mla_dimensions") for name in HEAD_DIMENSIONS}
    major, minor = _capability(device_capability)
    # vLLM's own configurations have no platform.
    platform = _core.integer(getattr(config, "platform", Platform.AUTO), "platform")
    if platform == Platform.AUTO and major >= 0:
        platform = gpu_platform()
    return _core.SelectorConfig(
        dtype=dtype_code(part(config, "dtype", "selector_config")),
        **sizes,
        platform=platform,
        major=major,
        minor=minor,
        batch_invariant=getattr(config, "batch_invariant", False),
        ignore_overrides=ignore_overrides,
        backend=backend,
    )


def part(whole: Any, name: str, whole_name: str) -> Any:
    """An attribute that an argument must have."""
    try:
        return getattr(whole, name)
    except AttributeError:
        raise TypeError(
            f"{whole_name}: must have {name}, a {type(whole).__name__} has none"
        ) from None


def gpu_platform() -> Platform:
    """The GPU platform that torch was built for."""
    version = getattr(sys.modules.get("torch"), "version", None)
    return Platform.ROCM if getattr(version, "hip", None) else Platform.CUDA


def _capability(device_capability: Any) -> tuple[int, int]:
    if device_capability is None:
        return -1, -1
    pair: Sequence[Any]
    if hasattr(device_capability, "major"):
        pair = device_capability.major, part(device_capability, "minor", "device_capability")
    elif isinstance(device_capability, (tuple, list)) and len(device_capability) == 2:
        pair = device_capability
    else:
        raise TypeError(
            "device_capability: must be (major, minor) or None, not "
            + type(device_capability).__name__
        )
    major, minor = (_core.integer(number, "device_capability") for number in pair)
    if major < 0 or minor < 0:
        raise ValueError(f"device_capability = ({major}, {minor}): must not be negative")
    return major, minor
