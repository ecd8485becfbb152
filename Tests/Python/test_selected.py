# SPDX-License-Identifier: Apache-2.0
"""The whole layer with keys that a caller has selected, by numpy's tensors."""

import numpy as np
import pytest
from reference import TYPES
from reference_layer import LayerProblem
from reference_selected import SelectedProblem, with_new_tokens_cached
from test_layer import layer_for, lse_for


@pytest.mark.parametrize("dtype", TYPES)
def test_selected_keys(dtype):
    problem = SelectedProblem([7, 1, 0, 40, 3], [50, 0, 9, 160, 8], dtype=dtype)
    lse = lse_for(problem)
    layer = layer_for(problem)
    out = layer.forward(**problem.tensors, lse=lse)
    problem.check(out, lse)
    batch = problem.queries, problem.context
    bytes_needed = layer.workspace_size(*batch, topk_indices=problem.topk_indices)
    assert bytes_needed > 0


def test_kinds_of_indices():
    problem = SelectedProblem([7, 4], [50, 0])
    layer = layer_for(problem)
    expected = layer.forward(**problem.tensors)
    problem.check(expected)
    wide = np.full((13, 50), 77, np.int32)
    wide[:11, 3:25] = problem.topk_indices
    turned = np.asfortranarray(problem.topk_indices)
    lists = [[i for i in row if i >= 0] for row in problem.topk_indices.tolist()]
    for indices in (problem.topk_indices.astype(np.int64), wide[:, 3:25], turned, lists):
        out = layer.forward(**{**problem.tensors, "topk_indices": indices})
        assert (out == expected).all()


@pytest.mark.parametrize("selects", [False, True])
def test_new_tokens_in_the_cache(selects):
    kind = SelectedProblem if selects else LayerProblem
    problem = kind([7, 4, 1], [50, 0, 0], dtype="bfloat16")
    layer = layer_for(problem)
    tensors = with_new_tokens_cached(problem)
    expected = layer.forward(**problem.tensors)
    assert (layer.forward(**tensors) == expected).all()
    problem.check(expected)
    table = np.full((3, 12), 1 << 40)
    for row, blocks in zip(table, tensors["block_table"], strict=True):
        row[: len(blocks)] = blocks
    # Of int64 no more is looked at than has to be.
    assert (layer.forward(**{**tensors, "block_table": table}) == expected).all()


def test_all_keys_are_the_dense_result():
    problem = LayerProblem([30, 4], [10, 70])
    layer = layer_for(problem)
    dense = layer.forward(**problem.tensors)
    seen = [10 + i + 1 for i in range(30)] + [70 + i + 1 for i in range(4)]
    out = layer.forward(**problem.tensors, topk_indices=[range(count) for count in seen])
    assert (out == dense).all()


def test_refusals():
    problem = SelectedProblem([3], [10])
    layer = layer_for(problem)

    def refused(error, text, **changes):
        with pytest.raises(error, match=text):
            layer.forward(**{**problem.tensors, **changes})

    indices = problem.topk_indices.copy()
    indices[1, 4] = 12
    refused(ValueError, r"topk_indices\[1\]\[4\] = 12: must be -1 to 11", topk_indices=indices)
    refused(ValueError, r"topk = 0: must be at least 1", topk_indices=indices[:, :0])
    refused(
        ValueError, r"topk_indices: has 2 rows, must have one for each of the 3 tokens",
        topk_indices=indices[:2],
    )  # fmt: skip
    refused(ValueError, r"topk_indices.ndim = 1: must be 2", topk_indices=indices[0])
    # More tokens than there is memory for.
    refused(ValueError, "topk_indices: has 3 rows", query_start_loc=[0, 2**31 - 1])
    refused(ValueError, r"topk_indices\[2\]\[0\]", topk_indices=[[0], [1], [1 << 40]])
    refused(TypeError, "topk_indices", topk_indices=indices.astype(np.float32))
    refused(TypeError, "new_tokens_cached", new_tokens_cached="yes")
    refused(ValueError, "new_tokens_cached = 1", new_tokens_cached=True, context_only=True)
    up = layer_for(problem, algorithm="up_projected")
    with pytest.raises(ValueError, match="topk_indices"):
        up.forward(**problem.tensors)
    with pytest.raises(ValueError, match="topk_indices"):
        up.workspace_size(problem.queries, problem.context, topk_indices=problem.topk_indices)
