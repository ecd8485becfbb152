# SPDX-License-Identifier: Apache-2.0
"""Classes of backends that C and C++ code has registered, by the registry's name.

``mla_prefill.registered.X`` is a class that runs what stands behind ``X``.
"""

from functools import cache
from typing import Any

from mla_prefill import _core
from mla_prefill._native import NativePrefillBackend


def __getattr__(name: str) -> Any:
    row = next((row for row in _core.backends(None) if row["name"] == name), None)
    if row is None or not row["is_runnable"]:
        raise AttributeError(f"no backend '{name}' is registered that can be run")
    # An override cannot be asked for once something else overrides it.
    is_own = row["is_dynamic"] and not row["is_overridden"]
    return _backend_class(name, row["backend_name"], is_own)


@cache
def _backend_class(name: str, backend_name: str, is_own: bool) -> type[NativePrefillBackend]:
    return type(
        name,
        (NativePrefillBackend,),
        {
            "__doc__": f"The backend that is registered as {name}, run by the library.",
            "__module__": __name__,
            "member_name": name,
            "is_own_implementation": is_own,
            "get_name": staticmethod(lambda: backend_name),
        },
    )
