# SPDX-License-Identifier: Apache-2.0
"""Engine steps recorded in Tests/Data."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

_DATA = Path(__file__).resolve().parents[1] / "Data"
_TYPES = {"BF16": ml_dtypes.bfloat16, "F32": np.float32, "I32": np.int32}


def recorded(name):
    """(tensors, metadata) of a safetensors file."""
    content = (_DATA / f"{name}.safetensors").read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])
    metadata = header.pop("__metadata__")
    tensors = {}
    for key, entry in header.items():
        begin, end = (data + offset for offset in entry["data_offsets"])
        values = np.frombuffer(content[begin:end], _TYPES[entry["dtype"]])
        tensors[key] = values.reshape(entry["shape"])
    return tensors, metadata
