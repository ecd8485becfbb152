# SPDX-License-Identifier: Apache-2.0
"""The whole layer with keys that a caller has selected, by torch's tensors."""

import pytest

torch = pytest.importorskip("torch")

from reference import TYPES
from reference_selected import SelectedProblem
from test_layer_torch import arguments_of, layer_for


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", TYPES)
def test_selected_keys(dtype, index_type):
    problem = SelectedProblem([7, 1, 40], [50, 0, 9], dtype=dtype)
    lse = torch.zeros(2, 48)
    tensors = arguments_of(problem, index_type)
    tensors["topk_indices"] = torch.from_numpy(problem.topk_indices).to(index_type)
    layer = layer_for(problem, dtype=getattr(torch, dtype))
    out = layer.forward(**tensors, lse=lse)
    problem.check(out.double().numpy(), lse.numpy())
    # A view of what an engine has for its longest step.
    wide = torch.full((60, 30), -7, dtype=index_type)
    wide[:48, :22] = tensors["topk_indices"]
    again = layer.forward(**{**tensors, "topk_indices": wide[:, :22]})
    assert torch.equal(out, again)
