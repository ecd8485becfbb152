# SPDX-License-Identifier: Apache-2.0
"""Choosing the backend that serves a configuration. The rules are the library's."""

import os
import sys
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple

from mla_prefill import _core
from mla_prefill._dtypes import DType, dtype_code, with_dtype
from mla_prefill.base import MLADimensions
from mla_prefill.registry import MLAPrefillBackendEnum

if TYPE_CHECKING:
    from mla_prefill.base import MLAPrefillBackend


class Platform(IntEnum):
    """Where the tensors are."""

    AUTO = 0
    CPU = 1
    CUDA = 2
    ROCM = 3


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
    #: An explicit choice; "auto": automatic; None: MLA_PREFILL_BACKEND, else automatic.
    backend: MLAPrefillBackendEnum | str | None = None
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
        platform = _gpu_platform()
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


def get_mla_prefill_backend(vllm_config: Any) -> "type[MLAPrefillBackend]":
    """Chooses the backend class that serves a configuration.

    Args:
        vllm_config: an ``MLAPrefillConfig``, a vLLM config, or None before the model
            is known.

    Raises:
        ValueError: the explicit choice does not fit, or nothing does; vLLM's text.
    """
    config = vllm_config if isinstance(vllm_config, MLAPrefillConfig) else _from_vllm(vllm_config)
    try:
        name = _core.select(config.library_config())
    except ValueError as error:
        error.args = tuple(with_dtype(str(text), config.dtype) for text in error.args)
        raise
    member = MLAPrefillBackendEnum[name]
    backend_class = _checked_class(member, config)
    _log_choice(member.name)
    return backend_class


def _checked_class(
    member: MLAPrefillBackendEnum, config: MLAPrefillConfig
) -> "type[MLAPrefillBackend]":
    """The class; one that the library knows by path alone has its rules in Python."""
    row = next(row for row in _core.backends(None) if row["name"] == member.name)
    if row["is_runnable"]:
        return member.get_class()
    capability = config.device_capability
    try:
        backend_class = member.get_class()
        reasons = backend_class.validate_configuration(capability, config.selector_config())
    except ImportError:
        reasons = ["ImportError"]
    if reasons:
        raise ValueError(
            f"Selected MLA prefill backend {member.name} is not valid for this configuration. "
            f"Reason: {reasons}"
        )
    return backend_class


def _from_vllm(vllm_config: Any) -> MLAPrefillConfig:
    model_config = getattr(vllm_config, "model_config", None)
    platform, capability = _device_of(vllm_config)
    attention_config = getattr(vllm_config, "attention_config", None)
    dimensions = {}
    if model_config is not None:
        model = model_config.hf_text_config
        dimensions = {
            name: index(getattr(model, name, 0))
            for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        }
    return MLAPrefillConfig(
        dtype=_default_dtype() if model_config is None else model_config.dtype,
        backend=getattr(attention_config, "mla_prefill_backend", None),
        platform=platform,
        device_capability=capability,
        batch_invariant=os.environ.get("VLLM_BATCH_INVARIANT", "0") not in ("", "0"),
        **dimensions,
    )


def _default_dtype() -> Any:
    torch = sys.modules.get("torch")
    return DType("float32") if torch is None else torch.get_default_dtype()


def _device_of(vllm_config: Any) -> tuple[Platform, tuple[int, int] | None]:
    device_type = getattr(getattr(vllm_config, "device_config", None), "device_type", None)
    torch = sys.modules.get("torch")
    if device_type != "cuda" or torch is None:
        return Platform.AUTO, None
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    return _gpu_platform(), capability


def _gpu_platform() -> Platform:
    version = getattr(sys.modules.get("torch"), "version", None)
    return Platform.ROCM if getattr(version, "hip", None) else Platform.CUDA


def _capability(device_capability: Any) -> tuple[int, int]:
    if device_capability is None:
        return -1, -1
    if hasattr(device_capability, "major"):
        return device_capability.major, device_capability.minor
    major, minor = device_capability
    return major, minor


@cache
def _log_choice(name: str) -> None:
    from logging import getLogger

    getLogger("mla_prefill").info("Using %s MLA prefill backend.", name)
