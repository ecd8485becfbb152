# SPDX-License-Identifier: Apache-2.0
"""torch.ops.mla_prefill.layer: the layer's results, its handles, graphs."""

import subprocess
import sys
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from reference_layer import LayerProblem
from test_layer_torch import arguments_of, layer_for
from torch._dynamo.utils import counters
from torch.library import opcheck

from mla_prefill import merge_attn_states
from mla_prefill.torch_ops import handle_of

OPERATOR = torch.ops.mla_prefill.layer
PROBLEM = LayerProblem([7, 1, 12], [20, 0, 9], dtype="bfloat16")


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    counters.clear()


class Attention(torch.nn.Module):
    """A model's, as one would write it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.register_buffer("handle", handle_of(layer), persistent=False)

    def forward(self, q, kv_c_normed, k_pe, **batch):
        return OPERATOR(q * 1, kv_c_normed, k_pe, self.handle, self.layer.v_head_dim, **batch) * 1


@pytest.mark.parametrize("options", [{}, {"output_scale": 0.02}])
def test_results_are_the_layers(options):
    layer, arguments = layer_for(PROBLEM), arguments_of(PROBLEM)
    out = OPERATOR(handle=handle_of(layer), v_head_dim=PROBLEM.value, **arguments, **options)
    expected = layer.forward(**arguments, **options)
    assert out.dtype == expected.dtype and out.stride() == expected.stride()
    assert torch.equal(out.float(), expected.float())
    if not options:
        PROBLEM.check(out.double().numpy())


class OnCUDA(torch.Tensor):
    """What torch takes for one there, without one."""

    @staticmethod
    def __new__(cls, *shape):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bfloat16, device="cuda:0")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        with torch._C._DisableTorchDispatch():
            return function(*args, **kwargs or {})


def test_on_cuda(monkeypatch):
    """Its tensors come to the layer as they are, the CPU's numbers beside them."""
    layer, given = layer_for(PROBLEM), []
    monkeypatch.setattr(layer, "forward", lambda *tensors, **named: given.append((tensors, named)) or tensors[0])
    q, latents, table = OnCUDA(20, 2, 32), OnCUDA(20, 40), OnCUDA(3, 3)
    lens = torch.tensor([20, 0, 9])
    out = OPERATOR(q, latents, None, handle_of(layer), PROBLEM.value, block_table=table, context_lens=lens)
    tensors, named = given.pop()
    assert out is tensors[0] is q and tensors[1] is latents
    assert named["block_table"] is table and named["context_lens"] is lens and named["lse"] is None


def test_other_caches():
    """All that forward takes goes by its own name."""
    layer, arguments = layer_for(PROBLEM), arguments_of(PROBLEM)
    expected = layer.forward(**arguments)
    whole, table = arguments["kv_cache"], arguments["block_table"]
    arguments["kv_cache"], arguments["k_pe_cache"] = whole.split([PROBLEM.rank, PROBLEM.rope], -1)
    arguments["block_table"] = table.flip(0)
    arguments["block_table_rows"] = torch.tensor([2, 1, 0], dtype=torch.int32)
    call = dict(handle=handle_of(layer), v_head_dim=PROBLEM.value)
    starts = torch.zeros(3, dtype=torch.int32)
    assert torch.equal(OPERATOR(**call, **arguments, context_starts=starts), expected)
    starts[2], lens = 1, arguments["context_lens"].clone()
    lens[2] -= 1
    arguments |= {"context_starts": starts, "context_lens": lens}
    shorter = OPERATOR(**call, **arguments)
    assert torch.equal(shorter, layer.forward(**arguments))
    assert torch.equal(shorter[:8], expected[:8]) and not torch.equal(shorter[8:], expected[8:])


def test_new_tokens_and_context_are_merged():
    """What the flag and the lse are for: parts of a prompt that two calls attend to."""
    layer, arguments = layer_for(PROBLEM), arguments_of(PROBLEM)
    run = partial(torch.ops.mla_prefill.layer_with_lse, v_head_dim=PROBLEM.value)
    handle = handle_of(layer)
    whole = run(handle=handle, **arguments)
    lse = torch.empty_like(whole[1])
    assert torch.equal(whole[0], layer.forward(**arguments, lse=lse))
    assert torch.equal(whole[1], lse)

    without = {**arguments, "kv_c_normed": None, "k_pe": None, "context_only": True}
    context = run(handle=handle, **without)
    assert torch.equal(context[0], OPERATOR(handle=handle, v_head_dim=PROBLEM.value, **without))
    assert torch.equal(context[1][:, 7], torch.full((PROBLEM.heads,), -torch.inf))
    absent = {name: None for name in ("kv_cache", "block_table", "context_lens")}
    new = run(handle=handle, **{**arguments, **absent})
    out = torch.empty_like(whole[0])
    merge_attn_states(out, *context, *new)
    torch.testing.assert_close(out, whole[0], atol=2e-2, rtol=2e-2)


def test_the_lse_of_rows_of_no_request():
    layer, arguments = layer_for(PROBLEM), arguments_of(PROBLEM)
    arguments |= {"handle": handle_of(layer), "v_head_dim": PROBLEM.value}
    arguments |= {"query_start_loc": torch.tensor([0, 7, 8]), "block_table_rows": None}
    arguments["context_lens"] = arguments["context_lens"][:2]
    out, lse = torch.ops.mla_prefill.layer_with_lse(**arguments)
    assert not out[8:].any() and torch.isneginf(lse[:, 8:]).all()
    assert torch.isfinite(lse[:, :8]).all()


@pytest.mark.parametrize("options", [{}, {"output_scale": 0.02}])
@pytest.mark.parametrize("operator", [OPERATOR, torch.ops.mla_prefill.layer_with_lse])
def test_opcheck(operator, options):
    layer, arguments = layer_for(PROBLEM), arguments_of(PROBLEM)
    # Compared with itself: what nobody owns may not be NaN.
    arguments["kv_cache"].nan_to_num_()
    opcheck(
        operator,
        kwargs={"handle": handle_of(layer), "v_head_dim": PROBLEM.value, **arguments, **options},
        args=(),
        test_utils=(
            "test_schema",
            "test_autograd_registration",
            "test_faketensor",
            *(() if options else ("test_aot_dispatch_dynamic",)),
        ),
    )


def test_one_graph_for_all_layers():
    layers = [layer_for(LayerProblem([4], [3], seed=seed)) for seed in range(12)]
    arguments = arguments_of(LayerProblem([4], [3]))
    call = torch.compile(Attention.forward, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        results = [call(Attention(layer), **arguments) for layer in layers]
    expected = [layer.forward(**arguments) for layer in layers]
    assert all(map(torch.equal, results, expected))
    assert not torch.equal(results[0], results[1])
    assert counters["stats"]["unique_graphs"] == 1


def test_whole_graphs_of_inductor():
    attention = Attention(layer_for(PROBLEM))
    call = torch.compile(attention, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for lengths, context in (([7, 1, 12], [20, 0, 9]), ([3, 9], [0, 30])):
            arguments = arguments_of(LayerProblem(lengths, context, dtype="bfloat16"))
            expected = attention.layer.forward(**arguments)
            torch.testing.assert_close(call(**arguments), expected)


@pytest.mark.parametrize("strict", [False, True])
def test_programs_run_in_other_processes(strict, tmp_path):
    class Module(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.register_buffer("handle", handle_of(layer, 77), persistent=False)

        def forward(self, q, latents, lens):
            return OPERATOR(q, latents, None, self.handle, 8, query_start_loc=lens) * 2

    program = """
import sys
import mla_prefill, torch
from mla_prefill import merge_attn_states
from mla_prefill.torch_ops import handle_of

def made():
    torch.manual_seed(3)
    return mla_prefill.MLAPrefillLayer(1, 0.1, 8, 8, 0, 8, torch.randn(16, 8))
"""
    names = {}
    exec(program, names)
    layer = names["made"]()
    rows = torch.export.Dim("rows", max=4096)
    requests = torch.export.Dim("requests", max=512)
    torch.export.save(
        torch.export.export(
            Module(layer),
            (torch.randn(4, 1, 8), torch.randn(4, 8), torch.tensor([0, 1, 4])),
            dynamic_shapes=({0: rows}, {0: rows}, {0: requests}),
            strict=strict,
        ),
        tmp_path / "program.pt2",
    )
    program += """
program = torch.export.load(sys.argv[1]).module()
q, latents = torch.randn(9, 1, 8), torch.randn(9, 8)
arguments = q, latents, torch.tensor([0, 2, 2, 9])
try:
    program(*arguments)
except ValueError as error:
    assert str(error).startswith("handle = 77: is that of no layer"), error
else:
    raise AssertionError("ran without a layer")
layer = made()
handle_of(layer, 77)
expected = layer.forward(q, latents, None, query_start_loc=[0, 2, 2, 9])
assert torch.equal(program(*arguments), expected * 2)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, tmp_path / "program.pt2"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_handles():
    """Weak: a layer goes when its owner lets it go, and so does what runs by the handle."""
    layer, other = layer_for(PROBLEM), layer_for(PROBLEM)
    arguments = {**arguments_of(PROBLEM), "v_head_dim": PROBLEM.value}
    handle = handle_of(layer)
    assert handle.dtype == torch.int64 and handle.device.type == "cpu"
    assert handle != handle_of(other)
    assert handle_of(layer, int(handle)) == handle
    with pytest.raises(ValueError, match=f"^number = {int(handle)}: is another layer's"):
        handle_of(other, int(handle))
    OPERATOR(handle=handle, **arguments)
    with pytest.raises(ValueError, match="^v_head_dim = 17: must be the layer's, 16"):
        OPERATOR(handle=handle, **{**arguments, "v_head_dim": 17})
    del layer
    with pytest.raises(ValueError, match=f"^handle = {int(handle)}: is that of no layer"):
        OPERATOR(handle=handle, **arguments)
    assert handle_of(other, int(handle)) == handle
    with pytest.raises(TypeError, match="^layer: must be an MLAPrefillLayer, not object"):
        handle_of(object())
    with pytest.raises(TypeError, match="^number: must be an integer, not float"):
        handle_of(other, 1.5)


def test_it_has_no_gradient():
    layer, arguments = layer_for(PROBLEM), arguments_of(PROBLEM)
    arguments["q"].requires_grad_()
    arguments |= {"handle": handle_of(layer), "v_head_dim": PROBLEM.value}
    with torch.no_grad():
        expected = OPERATOR(**arguments)
    out = OPERATOR(**arguments)
    assert torch.equal(out, expected) and not expected.requires_grad
    with pytest.raises(NotImplementedError, match="^layer: has no gradient"):
        out.sum().backward()
    out, lse = torch.ops.mla_prefill.layer_with_lse(**arguments)
    with pytest.raises(NotImplementedError, match="^layer_with_lse: has no gradient"):
        (out.sum() + lse.sum()).backward()


def test_refusals_name_the_argument():
    layer, arguments = layer_for(PROBLEM), arguments_of(PROBLEM)
    arguments |= {"handle": handle_of(layer), "v_head_dim": PROBLEM.value}
    with pytest.raises(ValueError, match=r"^kv_c_normed\.dtype"):
        OPERATOR(**{**arguments, "kv_c_normed": arguments["kv_c_normed"].float()})
    with pytest.raises(ValueError, match="^context_lens: has 2 entries"):
        OPERATOR(**{**arguments, "context_lens": arguments["context_lens"][:2]})
