# SPDX-License-Identifier: Apache-2.0
"""torch.ops.mla_prefill.attention: the function's results, gradients, graphs."""

import io

import pytest

torch = pytest.importorskip("torch")

import torch.autograd.forward_ad as forward_ad
from reference_torch import AttentionProblem
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck

import mla_prefill
from mla_prefill import _attention_gradient, torch_ops

pytestmark = pytest.mark.filterwarnings("ignore")

OPERATOR = torch.ops.mla_prefill.attention
PROBLEMS = {
    "one": AttentionProblem([9], [9], causal="start"),
    "batch": AttentionProblem([7], [13], batch=3, causal="end", scale=0.3),
    "all keys": AttentionProblem([5], [8], batch=2, heads=6, kv_heads=1),
    "ragged": AttentionProblem([5, 0, 1, 12], [6, 3, 4, 12], causal="end", beyond=3),
    "the same offsets": AttentionProblem([5, 8], [5, 8], causal="start"),
    "starts": AttentionProblem([5, 8], [7, 3], causal="start", heads=3, kv_heads=3),
    "more queries than keys": AttentionProblem([9, 2], [4, 0], causal="end"),
    "ranges": AttentionProblem(
        [4, 6], [20, 20], shared=True, k_begin=[3, 5], k_count=[9, 11], causal="end"
    ),
    "padded": AttentionProblem([6], [9], batch=2, k_begin=[0, 4], k_count=[9, 0], causal="end"),
}


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()


def inputs(problem):
    return [tensor.clone().requires_grad_() for tensor in problem.tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", PROBLEMS)
def test_results_are_the_functions(name, dtype):
    problem = PROBLEMS[name]
    tensors = [tensor.to(dtype) for tensor in problem.tensors]
    got = OPERATOR(*tensors, **problem.options)
    expected = mla_prefill.attention(*tensors, **problem.options, return_lse=True)
    assert all(map(torch.equal, got, expected))
    assert [t.stride() for t in got] == [t.stride() for t in expected]


@pytest.mark.parametrize("most_scores", [1, 100, 1 << 24])
@pytest.mark.parametrize("of", ["out", "lse", "both"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_against_float64(name, of, most_scores, monkeypatch):
    monkeypatch.setattr(_attention_gradient, "_MOST_SCORES", most_scores)
    problem = PROBLEMS[name]
    tensors, exact = inputs(problem), [t.double().requires_grad_() for t in problem.tensors]
    results, expected = OPERATOR(*tensors, **problem.options), problem.expected(*exact)
    random = torch.Generator().manual_seed(1)
    grads = [torch.randn(result.shape, generator=random) for result in results]
    # That of a constant is nobody's.
    grads[1][results[1].isneginf()] = 0
    chosen = {"out": [0], "lse": [1], "both": [0, 1]}[of]
    got = torch.autograd.grad(
        [results[i] for i in chosen], tensors, [grads[i] for i in chosen], allow_unused=True
    )
    wanted = torch.autograd.grad(
        [expected[i] for i in chosen],
        exact,
        [grads[i].double() for i in chosen],
        allow_unused=True,
    )
    torch.testing.assert_close(results[0].double(), expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(results[1].double(), expected[1], atol=1e-4, rtol=0)
    for one, other in zip(got, wanted, strict=True):
        other = torch.zeros_like(one).double() if other is None else other
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_are_those_of_torchs_attention(is_causal, dtype, tolerance):
    problem = AttentionProblem([33], [33], batch=2, kv_heads=4, v_dim=24, dtype=dtype)
    tensors, others = inputs(problem), inputs(problem)
    causal = "start" if is_causal else None
    grad = torch.randn(2, 4, 33, 24).to(dtype)
    out, _ = OPERATOR(*tensors, causal=causal)
    other = torch.nn.functional.scaled_dot_product_attention(*others, is_causal=is_causal)
    got = torch.autograd.grad(out, tensors, grad)
    expected = torch.autograd.grad(other, others, grad)
    for one, another in zip(got, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, another, atol=tolerance, rtol=tolerance)


def test_rows_of_no_request_have_no_part():
    """Whatever is in them, and in keys that nobody sees."""
    problem = PROBLEMS["ragged"]
    tensors = inputs(problem)
    with torch.no_grad():
        for tensor in tensors:
            tensor[-problem.beyond :] = torch.nan
    out, _ = OPERATOR(*tensors, **problem.options)
    out.sum().backward()
    for tensor, whole in zip(tensors, problem.tensors, strict=True):
        assert tensor.grad.shape == whole.shape and tensor.grad.isfinite().all()
        assert (tensor.grad[-problem.beyond :] == 0).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_opcheck(name):
    problem = PROBLEMS[name]
    # Two forms take all of the time.
    everything = name in ("batch", "ragged")
    checks = {} if everything else {"test_utils": ("test_schema", "test_faketensor")}
    opcheck(OPERATOR, inputs(problem), problem.options, **checks)
    tensors = [tensor.bfloat16() for tensor in problem.tensors]
    out, lse = OPERATOR(*tensors, **problem.options)
    options = {**problem.options, "scale": 0.2}
    for grads in ((out, torch.ones_like(lse)), (None, torch.ones_like(lse)), (out, None)):
        opcheck(
            torch.ops.mla_prefill.attention_backward,
            (*grads, *tensors, out, lse),
            options,
            test_utils=("test_schema", "test_faketensor"),
        )


@pytest.mark.parametrize("operator", [OPERATOR, torch.ops.mla_prefill.layer])
def test_signatures_are_documented(operator):
    schema = operator.default._schema
    arguments = (
        argument.name + (f"={argument.default_value}" if argument.has_default_value() else "")
        for argument in schema.arguments
    )
    name = schema.name.partition("::")[2]
    assert f"``{name}({', '.join(arguments)}) -> " in " ".join(torch_ops.__doc__.split())


def step(call, tensors, options):
    out, lse = call(*tensors, **options)
    loss = (out.square().sum(), lse.masked_fill(lse.isneginf(), 0).sum())
    return torch.autograd.grad(sum(loss), tensors)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["one", "batch", "ragged"])
def test_whole_graphs(name, backend):
    problem = PROBLEMS[name]
    compiled = torch.compile(
        lambda q, *rest, **named: OPERATOR(q * 1, *rest, **named), backend=backend, fullgraph=True
    )
    got = step(compiled, inputs(problem), problem.options)
    expected = step(OPERATOR, inputs(problem), problem.options)
    assert all(map(torch.equal, got, expected))
    with torch.no_grad():
        got, expected = (call(*problem.tensors, **problem.options) for call in (compiled, OPERATOR))
    assert all(map(torch.equal, got, expected))


def test_whole_graphs_of_inductor():
    """Of any length, trained."""

    def attend(q, k, v):
        heads_first = (tensor.transpose(1, 2) for tensor in (q * 1, k, v))
        return OPERATOR(*heads_first, causal="end")[0].transpose(1, 2) * 2

    compiled = torch.compile(attend, fullgraph=True, dynamic=True)
    for rows in (5, 9):
        shapes = (2, rows, 4, 24), (2, 11, 2, 24), (2, 11, 2, 16)
        tensors = [torch.randn(shape).requires_grad_() for shape in shapes]
        got, expected = (call(*tensors) for call in (compiled, attend))
        torch.testing.assert_close(got, expected)
        grads = (torch.autograd.grad(out.square().sum(), tensors) for out in (got, expected))
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("strict", [False, True])
def test_exported_programs(strict):
    class Module(torch.nn.Module):
        def forward(self, q, k, v, cu_seqlens):
            return OPERATOR(q * 1, k, v, causal="start", cu_seqlens_q=cu_seqlens)

    rows, requests = torch.export.Dim("rows", max=4096), torch.export.Dim("requests", max=512)
    first, other = AttentionProblem([4, 5], [4, 5]), AttentionProblem([3, 9, 1], [3, 9, 1])
    arguments = [(*p.tensors, p.options["cu_seqlens_q"]) for p in (first, other)]
    lengths = {"q": {0: rows}, "k": {0: rows}, "v": {0: rows}, "cu_seqlens": {0: requests}}
    program = torch.export.export(Module(), arguments[0], dynamic_shapes=lengths, strict=strict)
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    for exported in (program, torch.export.load(saved)):
        for tensors in arguments:
            got = exported.module()(*tensors)
            assert all(map(torch.equal, got, Module()(*tensors)))


TRACERS = {
    "torch.jit.trace": lambda call, x: torch.jit.trace(call, x, check_trace=False),
    "make_fx": lambda call, x: make_fx(call)(*x),
    "make_fx, fake": lambda call, x: make_fx(call, tracing_mode="fake")(*x),
    "make_fx, symbolic": lambda call, x: make_fx(call, tracing_mode="symbolic")(*x),
    "make_fx, before dispatch": lambda call, x: make_fx(call, pre_dispatch=True)(*x),
    "functionalize": lambda call, x: torch.func.functionalize(call),
    "vmap": lambda call, x: lambda *x: torch.vmap(call)(*(t[None] for t in x))[0],
    "checkpoint": lambda call, x: lambda *x: torch.utils.checkpoint.checkpoint(
        call, *x, use_reentrant=False
    ),
}


@pytest.mark.parametrize("name", TRACERS)
def test_tracers(name):
    def call(q, k, v):
        return torch.relu(OPERATOR(q * 1, k, v, causal="end")[0])

    first, other = (AttentionProblem([6], [9], seed=seed).tensors for seed in (0, 1))
    traced = TRACERS[name](call, tuple(first))
    assert torch.equal(traced(*other), call(*other))


def with_tangent(call, x):
    with forward_ad.dual_level():
        call(forward_ad.make_dual(x, x))


def second_gradient(call, x):
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(call(x), x, create_graph=True)
    grad.sum().backward()


@pytest.mark.parametrize(
    "way",
    [
        lambda call, x: torch.func.grad(call)(x),
        lambda call, x: torch.func.jvp(call, (x,), (x,)),
        with_tangent,
        second_gradient,
    ],
    ids=["grad", "jvp", "forward-mode AD", "a second gradient"],
)
def test_what_has_no_rule_is_refused(way):
    q, k, v = PROBLEMS["one"].tensors
    with pytest.raises(NotImplementedError, match="attention: has|jvp function"):
        way(lambda q: OPERATOR(q, k, v)[0].sum(), q)


def test_refusals_name_the_argument():
    q, k, v = PROBLEMS["one"].tensors
    with pytest.raises(ValueError, match=r"^v\.dtype"):
        OPERATOR(q, k, v.half())
    with pytest.raises(ValueError, match="^causal = 'sideways': must be"):
        OPERATOR(q, k, v, causal="sideways")
    with pytest.raises(ValueError, match="^cu_seqlens_q"):
        OPERATOR(q, k, v, cu_seqlens_q=torch.tensor([0, 99]))


