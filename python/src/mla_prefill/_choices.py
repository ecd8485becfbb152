# SPDX-License-Identifier: Apache-2.0
"""Arguments that are one of a few words."""

from typing import Any


def code_of(value: Any, codes: dict[str, int], name: str) -> int:
    """TypeError or ValueError that begin with ``name`` for what is none of them."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: must be one of {', '.join(codes)}, not {type(value).__name__}")
    if value not in codes:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(codes)}")
    return codes[value]
