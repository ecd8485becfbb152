# SPDX-License-Identifier: Apache-2.0
"""What a backend is chosen for and judged by: a dtype, head dimensions, a device."""

import sys
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from mla_prefill import _core
from mla_prefill._dtypes import dtype_code


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
            mla_dimensions=MLADimensions(
                qk_nope_head_dim=self.qk_nope_head_dim,
                qk_rope_head_dim=self.qk_rope_head_dim,
                v_head_dim=self.v_head_dim,
            ),
            platform=self.platform,
            batch_invariant=self.batch_invariant,
        )

    def library_config(self) -> "_core.SelectorConfig":
        """The same for the library."""
        choice = self.backend
        name = choice if choice is None or isinstance(choice, str) else choice.name
        return library_config(self.selector_config(), self.device_capability, backend=name)


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
    dimensions = config.mla_dimensions
    major, minor = _capability(device_capability)
    # vLLM's own configurations have no platform.
    platform = getattr(config, "platform", Platform.AUTO)
    if platform == Platform.AUTO and major >= 0:
        platform = gpu_platform()
    return _core.SelectorConfig(
        dtype=dtype_code(config.dtype),
        qk_nope_head_dim=dimensions.qk_nope_head_dim,
        qk_rope_head_dim=dimensions.qk_rope_head_dim,
        v_head_dim=dimensions.v_head_dim,
        platform=int(platform),
        capability_major=major,
        capability_minor=minor,
        batch_invariant=bool(getattr(config, "batch_invariant", False)),
        ignore_overrides=ignore_overrides,
        backend=backend,
    )


def gpu_platform() -> Platform:
    """The GPU platform that torch was built for."""
    version = getattr(sys.modules.get("torch"), "version", None)
    return Platform.ROCM if getattr(version, "hip", None) else Platform.CUDA


def _capability(device_capability: Any) -> tuple[int, int]:
    if device_capability is None:
        return -1, -1
    if hasattr(device_capability, "major"):
        return device_capability.major, device_capability.minor
    major, minor = device_capability
    return major, minor
