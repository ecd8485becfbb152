# SPDX-License-Identifier: Apache-2.0
"""What the plug-in puts into vLLM's registries."""

import logging
import os
from typing import Any

from mla_prefill import host
from mla_prefill._native import NativePrefillBackend
from mla_prefill.vllm_plugin.compatibility import class_differences

#: Under vLLM's root, so that vLLM's log settings hold for it.
logger = logging.getLogger("vllm.mla_prefill")

_PREFILL_CLASSES = {
    "CPU": "mla_prefill.vllm_plugin.prefill.VllmCPUPrefillBackend",
    "ZEN_CPU": "mla_prefill.vllm_plugin.prefill.VllmZenCPUPrefillBackend",
}
_ATTENTION_CLASSES = {
    "CPU_MLA": "mla_prefill.vllm_plugin.cpu_mla.PrefillCPUMLABackend",
    "AMX_MLA": "mla_prefill.vllm_plugin.amx_mla.PrefillAMXMLABackend",
}
#: What ours derive from: classes that vLLM has moved are not found.
_BASES = {
    "CPU_MLA": "vllm.v1.attention.backends.mla.cpu_mla.CPUMLABackend",
    "AMX_MLA": "vllm.v1.attention.backends.mla.amx_mla.AMXMLABackend",
}


def is_enabled() -> bool:
    """Whether the environment lets the plug-in do its work."""
    return os.environ.get("MLA_PREFILL_VLLM", "1").strip().lower() not in ("0", "false", "off")


def overrides() -> list[str]:
    """The names that `register` overrides on this CPU.

    AMX_MLA, which vLLM prefers on AMX hosts, stays where the library has no AMX
    kernels (MLA_MAX_ISA).
    """
    return [*_PREFILL_CLASSES, *_attention_classes()]


def _attention_classes() -> dict[str, str]:
    if host.cpu_features()["bf16_isa"] == "amx":
        return _ATTENTION_CLASSES
    return {name: path for name, path in _ATTENTION_CLASSES.items() if name != "AMX_MLA"}


def register() -> None:
    """Overrides vLLM's CPU backends; may be called any number of times.

    What another plug-in has overridden before stays overridden by it. A vLLM
    without these registries is left alone: a plug-in that raises would keep the
    engine from starting.
    """
    if not is_enabled():
        logger.info("mla_prefill is switched off by MLA_PREFILL_VLLM; vLLM's own backends serve")
        return
    register_prefill_backends()
    register_attention_backends(_attention_classes())


def register_prefill_backends() -> None:
    """Overrides CPU and ZEN_CPU in vLLM's registry of MLA prefill backends."""
    try:
        from vllm.v1.attention.backends.mla.prefill.base import MLAPrefillBackend
        from vllm.v1.attention.backends.mla.prefill.registry import (
            MLAPrefillBackendEnum,
            register_mla_prefill_backend,
        )
    except ImportError as error:
        logger.warning("mla_prefill does nothing: vLLM has no MLA prefill registry (%s)", error)
        return
    differences = class_differences(MLAPrefillBackend, NativePrefillBackend)
    if differences:
        logger.warning("mla_prefill serves no prefill backend: %s", "; ".join(differences))
        return
    _override(MLAPrefillBackendEnum, _PREFILL_CLASSES, register_mla_prefill_backend)


def register_attention_backends(classes: dict[str, str] = _ATTENTION_CLASSES) -> None:
    """Overrides members of vLLM's registry of attention backends."""
    try:
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
    except ImportError as error:
        logger.warning("mla_prefill does not serve whole layers: %s", error)
        return
    _override(AttentionBackendEnum, classes, register_backend)


def _override(members: Any, classes: dict[str, str], override: Any) -> None:
    for name, path in classes.items():
        member = members.__members__.get(name)
        if member is None:
            logger.info("mla_prefill does not serve %s: this vLLM has no such backend", name)
        elif member.value != _BASES.get(name, member.value):
            moved = "mla_prefill does not serve %s: in this vLLM it is %s"
            logger.warning(moved, name, member.value)
        elif member.is_overridden() and member.get_path() != path:
            logger.warning("%s stays with %s, which has overridden it", name, member.get_path())
        else:
            override(member, path)
