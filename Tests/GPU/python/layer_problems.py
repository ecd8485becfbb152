# SPDX-License-Identifier: Apache-2.0
"""Problems for layers on the machine's devices."""

import numpy as np
from cuda_array import CudaArray
from reference_layer import LayerProblem

from mla_prefill import MLAPrefillLayer

MODEL = dict(rank=64, nope=128, rope=64, value=128)
TENSORS = "q", "kv_c_normed", "k_pe", "kv_cache"


def problem_of(lengths, context, dtype="bfloat16", **keywords):
    return LayerProblem(lengths, context, dtype=dtype, **MODEL | keywords)


def layer_for(problem, device=0, **options):
    return MLAPrefillLayer(**problem.dimensions, kv_b_proj=CudaArray(problem.kv_b_proj, device), **options)


def table_of(problem):
    """Requests' blocks, filled up with what is no block's."""
    table = np.full((len(problem.block_table), max(map(len, problem.block_table), default=0)), -1, np.int32)
    for row, blocks in zip(table, problem.block_table, strict=True):
        row[: len(blocks)] = blocks
    return table


def on_device(problem, device=0):
    there = {name: CudaArray(problem.tensors[name], device) for name in TENSORS}
    return problem.tensors | there | {"block_table": CudaArray(table_of(problem), device)}


def lse_for(problem, device=0):
    return CudaArray(np.zeros((problem.heads, problem.queries[-1]), np.float32), device)
