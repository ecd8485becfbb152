# SPDX-License-Identifier: Apache-2.0
"""Layers of quantized weights and their scales."""

import ml_dtypes
import numpy as np
import pytest
from reference_layer import FP8, LayerProblem

from mla_prefill import MLAPrefillLayer


@pytest.mark.parametrize("shape", [(), (1,), (264,), (264, 1), (3, 2)], ids=str)
def test_fp8_weights(shape):
    """One scale, scales of rows, scales of blocks."""
    # Neither dimension is a multiple of a block's.
    problem = LayerProblem([9, 4], [30, 0], heads=6, rank=150, nope=24, value=20)
    scales = np.asarray(np.random.default_rng(0).uniform(1e-3, 2e-3, shape), np.float32)
    weights = np.clip(problem.kv_b_proj * 500, -448, 448).astype(FP8)
    spread = scales.reshape(264, 1) if scales.size == 264 else scales
    if shape == (3, 2):
        spread = scales.repeat(128, 0).repeat(128, 1)[:264, :150]
    problem.kv_b_proj = weights.astype(np.float32) * spread
    read_only = scales.copy()
    read_only.flags.writeable = False
    numbers = [scales[()], float(scales), np.float64(scales)] if shape == () else []
    for kind in (scales, read_only, *numbers):
        layer = MLAPrefillLayer(
            **problem.dimensions, kv_b_proj=weights, weight_scales=kind, dtype="float32"
        )
        problem.check(layer.forward(**problem.tensors))


@pytest.mark.parametrize("block", [(32, 32), (1, 32), (7, 150)], ids=str)
@pytest.mark.parametrize("powers", [False, True])
def test_fp8_weights_of_other_blocks(block, powers):
    problem = LayerProblem([9, 4], [30, 0], heads=6, rank=150, nope=24, value=20)
    shape = -(-264 // block[0]), -(-150 // block[1])
    scales = 2.0 ** np.random.default_rng(0).integers(-11, -8, shape)
    scales = scales.astype(ml_dtypes.float8_e8m0fnu if powers else np.float32)
    weights = np.clip(problem.kv_b_proj * 500, -448, 448).astype(FP8)
    spread = scales.astype(np.float32).repeat(block[0], 0).repeat(block[1], 1)[:264, :150]
    problem.kv_b_proj = weights.astype(np.float32) * spread
    layer = MLAPrefillLayer(
        **problem.dimensions,
        kv_b_proj=weights,
        weight_scales=scales,
        weight_block=block,
        dtype="float32",
    )
    problem.check(layer.forward(**problem.tensors))
