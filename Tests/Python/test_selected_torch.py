# SPDX-License-Identifier: Apache-2.0
"""The whole layer with keys that a caller has selected, by torch's tensors."""

import pytest

torch = pytest.importorskip("torch")

from reference import TYPES
from reference_selected import SelectedProblem, with_new_tokens_cached
from test_layer_torch import arguments_of, layer_for, tensor

from mla_prefill.torch_ops import handle_of


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


def test_operator():
    problem = SelectedProblem([7, 1, 40], [50, 0, 9], dtype="bfloat16")
    layer, tensors = layer_for(problem), arguments_of(problem)
    tensors["topk_indices"] = torch.from_numpy(problem.topk_indices)
    expected = layer.forward(**tensors)
    call = dict(handle=handle_of(layer), v_head_dim=problem.value)
    assert torch.equal(torch.ops.mla_prefill.layer(**tensors, **call), expected)
    # The same keys, all of them read from the cache.
    cached = with_new_tokens_cached(problem)
    longest = max(map(len, cached["block_table"]))
    table = [row + [-1] * (longest - len(row)) for row in cached["block_table"]]
    tensors |= {"kv_c_normed": None, "k_pe": None, "new_tokens_cached": True}
    tensors |= {"kv_cache": tensor(cached["kv_cache"]), "block_table": torch.tensor(table)}
    assert torch.equal(torch.ops.mla_prefill.layer(**tensors, **call), expected)
