# SPDX-License-Identifier: Apache-2.0
"""Choosing the backend that serves a configuration. The rules are the library's."""

import os
import sys
from typing import TYPE_CHECKING, Any

from mla_prefill import _core
from mla_prefill._adapter import reasons_of
from mla_prefill._dtypes import DType, with_dtype
from mla_prefill.configuration import (
    HEAD_DIMENSIONS,
    MLAPrefillConfig,
    MLAPrefillSelectorConfig,
    Platform,
    gpu_platform,
    part,
)
from mla_prefill.registry import MLAPrefillBackendEnum

if TYPE_CHECKING:
    from mla_prefill.base import MLAPrefillBackend

#: vLLM has these names here as well.
__all__ = ["MLAPrefillConfig", "MLAPrefillSelectorConfig", "Platform", "get_mla_prefill_backend"]

#: What tells a vLLM config from other objects.
_VLLM_PARTS = ("model_config", "attention_config", "device_config")


def get_mla_prefill_backend(vllm_config: Any) -> "type[MLAPrefillBackend]":
    """Chooses the backend class that serves a configuration.

    Args:
        vllm_config: an ``MLAPrefillConfig``, a vLLM config, or None before the model
            is known.

    Raises:
        TypeError: none of these, or a field of another type; the text names it.
        ValueError: the explicit choice does not fit, or nothing does; vLLM's text.
    """
    config = vllm_config if isinstance(vllm_config, MLAPrefillConfig) else _from_vllm(vllm_config)
    return _checked_class(chosen_member(config), config)


def chosen_member(config: MLAPrefillConfig) -> MLAPrefillBackendEnum:
    """What the library chooses; `get_mla_prefill_backend` asks a class of Python's own as well."""
    try:
        name = _core.select(config.library_config())
    except ValueError as error:
        error.args = tuple(with_dtype(str(text), config.dtype) for text in error.args)
        raise
    member: MLAPrefillBackendEnum = MLAPrefillBackendEnum[name]
    return member


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
        reasons = reasons_of(backend_class, capability, config.selector_config())
    except ImportError:
        reasons = ["ImportError"]
    if reasons:
        raise ValueError(
            f"Selected MLA prefill backend {member.name} is not valid for this configuration. "
            f"Reason: {reasons}"
        )
    return backend_class


def _from_vllm(vllm_config: Any) -> MLAPrefillConfig:
    if vllm_config is not None and not any(hasattr(vllm_config, name) for name in _VLLM_PARTS):
        raise TypeError(
            "vllm_config: must be an MLAPrefillConfig, a vLLM config or None, not "
            + type(vllm_config).__name__
        )
    model_config = getattr(vllm_config, "model_config", None)
    platform, capability = _device_of(vllm_config)
    attention_config = getattr(vllm_config, "attention_config", None)
    dimensions = {}
    if model_config is not None:
        model = part(model_config, "hf_text_config", "vllm_config.model_config")
        dimensions = {name: getattr(model, name, 0) for name in HEAD_DIMENSIONS}
    return MLAPrefillConfig(
        dtype=(
            _default_dtype()
            if model_config is None
            else part(model_config, "dtype", "vllm_config.model_config")
        ),
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
    return gpu_platform(), capability
