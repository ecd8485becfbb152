# SPDX-License-Identifier: Apache-2.0
"""What the plug-in puts into vLLM's registries."""

import logging
import os
from typing import Any

from mla_prefill import host

#: Under vLLM's root, so that vLLM's log settings hold for it.
logger = logging.getLogger("vllm.mla_prefill")

_PREFILL_CLASSES = {
    "CPU": "mla_prefill.vllm_plugin.prefill.VllmCPUPrefillBackend",
    "ZEN_CPU": "mla_prefill.vllm_plugin.prefill.VllmZenCPUPrefillBackend",
}
_AMX_MLA_CLASS = "mla_prefill.vllm_plugin.amx_mla.PrefillAMXMLABackend"


def is_enabled() -> bool:
    """Whether the environment lets the plug-in do its work."""
    return os.environ.get("MLA_PREFILL_VLLM", "1").strip().lower() not in ("0", "false", "off")


def register() -> None:
    """Overrides vLLM's CPU backends; may be called any number of times.

    What another plug-in has overridden before stays overridden by it. A vLLM
    without these registries is left alone: a plug-in that raises would keep the
    engine from starting.
    """
    if not is_enabled():
        logger.info("mla_prefill is switched off by MLA_PREFILL_VLLM; vLLM's own backends serve")
        return
    _register_prefill_backends()
    if host.cpu_features()["bf16_isa"] == "amx":
        _register_amx_mla()


def _register_prefill_backends() -> None:
    try:
        from vllm.v1.attention.backends.mla.prefill.registry import (
            MLAPrefillBackendEnum,
            register_mla_prefill_backend,
        )
    except ImportError as error:
        logger.warning("mla_prefill does nothing: vLLM has no MLA prefill registry (%s)", error)
        return
    for name, path in _PREFILL_CLASSES.items():
        _override(MLAPrefillBackendEnum, name, path, register_mla_prefill_backend)


def _register_amx_mla() -> None:
    """On AMX hosts vLLM prefers AMX_MLA, whose prefill asks no prefill backend."""
    try:
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
    except ImportError as error:
        logger.warning("mla_prefill does not serve AMX_MLA: %s", error)
        return
    _override(AttentionBackendEnum, "AMX_MLA", _AMX_MLA_CLASS, register_backend)


def _override(members: Any, name: str, path: str, override: Any) -> None:
    member = members.__members__.get(name)
    if member is None:
        # A vLLM from before that backend.
        return
    if member.is_overridden() and member.get_path() != path:
        logger.warning("%s stays with %s, which has overridden it", name, member.get_path())
        return
    override(member, path)
