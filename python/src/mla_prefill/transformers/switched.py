# SPDX-License-Identifier: Apache-2.0
"""Which models are switched."""

from threading import Lock
from typing import Any
from weakref import WeakSet

from mla_prefill._untraced import untraced

_expansions: WeakSet[Any] = WeakSet()
_lock = Lock()


def remember(expansion: Any) -> None:
    """
    Args:
        expansion: a `LatentExpansion`, which stands in its module for as long as that is switched.
    """
    with _lock:
        _expansions.add(expansion)


@untraced
def is_switched(config: Any) -> bool:
    """Whether modules of this configuration, the object, are switched."""
    with _lock:
        modules = [each.module for each in _expansions if _stands(each)]
    return any(getattr(module, "config", None) is config for module in modules)


def _stands(expansion: Any) -> bool:
    return vars(expansion.module).get("expand_kv") is expansion
