# SPDX-License-Identifier: Apache-2.0
"""The ways in which weights of a running engine change. In its process, or its workers'."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

WAYS = ("written in place", "load_weights", "reload_weights")


def update(worker: Any, how: str, model: str) -> None:
    """Gives the worker's model the kv_b_proj of another.

    Args:
        how: "written in place": by an operation of torch's; "load_weights": the model's own,
            as trainers call it, which writes through ``.data``; "reload_weights": vLLM's, which
            reads the other model from disk, all of it.
        model: the other's folder.
    """
    if how == "reload_weights":
        worker.model_runner.reload_weights(weights_path=model)
        return
    weights = load_file(Path(model) / "model.safetensors")
    changed = {name: tensor for name, tensor in weights.items() if "kv_b_proj" in name}
    running = worker.model_runner.get_model()
    if how == "load_weights":
        running.load_weights(changed.items())
        return
    with torch.no_grad():
        for name, tensor in changed.items():
            running.get_parameter(name).copy_(tensor)
