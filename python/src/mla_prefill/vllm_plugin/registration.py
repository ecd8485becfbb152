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
_ATTENTION_CLASSES = {"AMX_MLA": "mla_prefill.vllm_plugin.amx_mla.PrefillAMXMLABackend"}


def is_enabled() -> bool:
    """Whether the environment lets the plug-in do its work."""
    return os.environ.get("MLA_PREFILL_VLLM", "1").strip().lower() not in ("0", "false", "off")


def overrides() -> list[str]:
    """The names that `register` overrides on this CPU.

    On AMX hosts vLLM prefers the attention backend AMX_MLA, whose prefill asks no
    prefill backend. Without AMX kernels of ours (MLA_MAX_ISA) it stays.
    """
    has_amx = host.cpu_features()["bf16_isa"] == "amx"
    return [*_PREFILL_CLASSES, *(_ATTENTION_CLASSES if has_amx else ())]


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
    if "AMX_MLA" in overrides():
        register_attention_backends()


def register_prefill_backends() -> None:
    """Overrides CPU and ZEN_CPU in vLLM's registry of MLA prefill backends."""
    try:
        from vllm.v1.attention.backends.mla.prefill.registry import (
            MLAPrefillBackendEnum,
            register_mla_prefill_backend,
        )
    except ImportError as error:
        logger.warning("mla_prefill does nothing: vLLM has no MLA prefill registry (%s)", error)
        return
    _override(MLAPrefillBackendEnum, _PREFILL_CLASSES, register_mla_prefill_backend)


def register_attention_backends() -> None:
    """Overrides AMX_MLA in vLLM's registry of attention backends."""
    try:
        from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend
    except ImportError as error:
        logger.warning("mla_prefill does not serve AMX_MLA: %s", error)
        return
    _override(AttentionBackendEnum, _ATTENTION_CLASSES, register_backend)


def _override(members: Any, classes: dict[str, str], override: Any) -> None:
    for name, path in classes.items():
        member = members.__members__.get(name)
        if member is None:
            logger.info("mla_prefill does not serve %s: this vLLM has no such backend", name)
        elif member.is_overridden() and member.get_path() != path:
            logger.warning("%s stays with %s, which has overridden it", name, member.get_path())
        else:
            override(member, path)
