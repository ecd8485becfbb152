# SPDX-License-Identifier: Apache-2.0
"""Engine steps recorded in Tests/Data."""

from pathlib import Path

import ml_dtypes  # noqa: F401  numpy has bfloat16 by it
from safetensors import safe_open

_DATA = Path(__file__).resolve().parents[1] / "Data"


def recorded(name):
    """(tensors, metadata) of a safetensors file."""
    with safe_open(_DATA / f"{name}.safetensors", "numpy") as step:
        return {key: step.get_tensor(key) for key in step.keys()}, step.metadata()
