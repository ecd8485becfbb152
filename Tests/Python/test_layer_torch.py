# SPDX-License-Identifier: Apache-2.0
"""The whole layer with torch's tensors, read and written in place."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reference import TYPES
from reference_layer import LayerProblem

from mla_prefill import MLAPrefillLayer, concat_and_cache_mla, merge_attn_states

FP8 = torch.float8_e4m3fn


def tensor(array):
    """torch knows neither ml_dtypes' types nor read-only memory."""
    if array.dtype.itemsize == 1:
        return torch.from_numpy(array.view(np.uint8).copy()).view(FP8)
    return torch.from_numpy(array.astype(np.float32)).to(getattr(torch, array.dtype.name))


def arguments_of(problem, index_type=torch.int32):
    longest = max(map(len, problem.block_table))
    table = [row + [-1] * (longest - len(row)) for row in problem.block_table]
    tensors = {
        name: tensor(value)
        for name, value in problem.tensors.items()
        if isinstance(value, np.ndarray)
    }
    return tensors | {
        "block_table": torch.tensor(table, dtype=index_type),
        "query_start_loc": torch.tensor(problem.queries, dtype=index_type),
        "context_lens": torch.tensor(problem.context, dtype=index_type),
    }


def layer_for(problem, **options):
    return MLAPrefillLayer(
        **problem.dimensions,
        kv_b_proj=tensor(problem.kv_b_proj),
        cache_scale=problem.cache_scale,
        **options,
    )


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", TYPES)
def test_forward(dtype, index_type):
    problem = LayerProblem([7, 1, 40], [50, 0, 9], dtype=dtype)
    lse = torch.zeros(2, 48)
    out = layer_for(problem, dtype=getattr(torch, dtype)).forward(
        **arguments_of(problem, index_type), lse=lse
    )
    assert out.dtype == getattr(torch, dtype)
    problem.check(out.double().numpy(), lse.numpy())


def test_fp8_cache():
    problem = LayerProblem(
        [9, 3], [40, 21], dtype="bfloat16", cache_dtype="float8_e4m3fn", cache_scale=0.02
    )
    arguments = arguments_of(problem)
    layer = layer_for(problem, cache_dtype=FP8)
    out = layer.forward(**arguments)
    problem.check(out.double().numpy())
    as_bytes = arguments | {"kv_cache": arguments["kv_cache"].view(torch.uint8)}
    assert torch.equal(layer.forward(**as_bytes), out)
    filled = torch.zeros_like(arguments["kv_cache"].view(torch.uint8)).view(FP8)
    flat, stored = (
        cache.view(torch.uint8).flatten(0, 1) for cache in (filled, arguments["kv_cache"])
    )
    for rows, slots in zip(problem.cached, problem.slots, strict=True):
        rows = tensor(rows)
        concat_and_cache_mla(
            rows[:, : problem.rank],
            rows[:, problem.rank :],
            filled,
            torch.tensor(slots),
            torch.tensor(problem.cache_scale),
        )
        assert torch.equal(flat[slots], stored[slots])


def test_views_as_an_engine_has_them():
    """Rows of wider tensors, an `out` of rows after others', a table of more columns."""
    problem = LayerProblem([9, 14], [16, 3], dtype="bfloat16")
    layer, arguments = layer_for(problem), arguments_of(problem)
    expected = layer.forward(**arguments)
    latents = torch.cat([arguments["kv_c_normed"], arguments["k_pe"]], -1)
    arguments["kv_c_normed"], k_pe = latents.split([problem.rank, problem.rope], -1)
    arguments["k_pe"] = k_pe.unsqueeze(1).squeeze(1)
    table = torch.full((5, 9), -1, dtype=torch.int32)
    table[3:, : arguments["block_table"].shape[1]] = arguments["block_table"]
    arguments["block_table"] = table[3:]
    rows = torch.full((30, problem.heads * problem.value), 7.0, dtype=torch.bfloat16)
    out = rows[7:].view(-1, problem.heads, problem.value)
    assert layer.forward(**arguments, out=out) is out
    assert torch.equal(out, expected)
    assert (rows[:7] == 7).all()


def test_tokens_of_a_pool():
    """SGLang's: a place for each token, rows of places by request, one head in the buffer."""
    problem = LayerProblem([7, 1, 9], [50, 0, 31], dtype="bfloat16")
    places = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    req_to_token = torch.full((6, 64), 2**31 - 1, dtype=torch.int32)
    req_pool_indices = torch.tensor([4, 0, 1])
    kv_buffer = torch.full((200, 1, problem.rank + problem.rope), torch.nan, dtype=torch.bfloat16)
    for row, rows, begin in zip(req_pool_indices, problem.cached, (0, 60, 70), strict=True):
        out_cache_loc = places[begin : begin + len(rows)]
        req_to_token[row, : len(rows)] = out_cache_loc.int()
        latents, k_pe = tensor(rows).split([problem.rank, problem.rope], -1)
        concat_and_cache_mla(latents, k_pe, kv_buffer, out_cache_loc)
    out = layer_for(problem).forward(
        **arguments_of(problem)
        | {
            "kv_cache": kv_buffer,
            "block_table": req_to_token,
            "block_table_rows": req_pool_indices,
        }
    )
    problem.check(out.double().numpy())


def test_dense_tensors_that_are_padded():
    problem = LayerProblem([7, 1, 9], [50, 0, 31])
    length = 60
    starts = [length - context for context in problem.context]
    latents = torch.full((3, length + 5, problem.rank), torch.nan)[:, :length]
    k_pe = torch.full((3, 1, length, problem.rope), torch.nan)[:, 0]
    for request, (rows, start) in enumerate(zip(problem.cached, starts, strict=True)):
        new = tensor(rows).split([problem.rank, problem.rope], -1)
        latents[request, start:], k_pe[request, start:] = new
    out = layer_for(problem).forward(
        **arguments_of(problem)
        | {
            "kv_cache": latents,
            "k_pe_cache": k_pe,
            "block_table": None,
            "context_starts": torch.tensor(starts),
        }
    )
    problem.check(out.double().numpy())


def test_results_are_where_q_is():
    """Whatever torch's default device and type are."""
    problem = LayerProblem([7, 3], [12, 0])
    arguments, layer = arguments_of(problem), layer_for(problem)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            out = layer.forward(**arguments)
            quantized = layer.forward(**arguments, output_scale=torch.tensor(0.5, device="cpu"))
    finally:
        torch.set_default_dtype(torch.float32)
    problem.check(out.numpy())
    assert out.dtype == torch.float32 and quantized.device.type == "cpu"


def test_a_gradient_is_named():
    problem = LayerProblem([3], [0])
    weights = tensor(problem.kv_b_proj).requires_grad_()
    with pytest.raises(ValueError, match=r"kv_b_proj\.requires_grad"):
        MLAPrefillLayer(**problem.dimensions, kv_b_proj=weights)


def test_context_alone():
    """What `forward` gives with context_only, by merging what it gives without context."""
    problem = LayerProblem([9, 14, 3], [16, 0, 30])
    layer = layer_for(problem)
    arguments = arguments_of(problem)
    new = {name: arguments[name] for name in ("q", "kv_c_normed", "k_pe", "query_start_loc")}
    lse, context_lse = torch.empty(2, 26), torch.empty(2, 26)
    out = layer.forward(**new, lse=lse)
    arguments |= {"kv_c_normed": None, "k_pe": None}
    context = layer.forward(**arguments, lse=context_lse, context_only=True)
    assert (context[9:23] == 0).all() and (context_lse[:, 9:23] == -torch.inf).all()
    merge_attn_states(out, context, context_lse, out, lse, output_lse=lse)
    problem.check(out.numpy(), lse.numpy())
    assert layer.workspace_size([0, 9, 23, 26], [16, 0, 30], context_only=True) > 0
    with pytest.raises(TypeError, match="context_only"):
        layer.forward(**arguments, context_only="yes")
