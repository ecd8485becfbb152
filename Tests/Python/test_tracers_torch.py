# SPDX-License-Identifier: Apache-2.0
"""Where torch records, imitates or transforms its operators: calls are refused, by name, never
recorded as memory that nobody has written."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.autograd.forward_ad as forward_ad
from reference import Problem
from reference_layer import LayerProblem
from test_layer_torch import arguments_of, layer_for
from test_torch import backend_for, tensors_of
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from mla_prefill import attention, concat_and_cache_mla, merge_attn_states

pytestmark = pytest.mark.filterwarnings("ignore")

PROBLEM, LAYER = Problem([5]), LayerProblem([5], [3])
FIRST = torch.from_numpy(PROBLEM.v.copy())
BACKEND, MLA_LAYER = backend_for(PROBLEM), layer_for(LAYER)
Q, K, _ = tensors_of(PROBLEM)
ARGUMENTS, LSE, ROPE = arguments_of(LAYER), torch.zeros(2, 5), torch.zeros(5, LAYER.rope)


def new_tokens(v):
    return BACKEND.run_prefill_new_tokens(Q, K, v, False) * 1


def new_tokens_into(v):
    out = torch.zeros(5, 2, 16)
    BACKEND.run_prefill_new_tokens(Q, K, v, False, out=out)
    return out * 1


def forward(q):
    return MLA_LAYER.forward(**{**ARGUMENTS, "q": q}) * 1


def forward_with_lse(q):
    """Into a tensor that is none of torch's, but for lse."""
    lse = torch.zeros(2, 5)
    MLA_LAYER.forward(**{**ARGUMENTS, "q": q}, out=np.zeros((5, 2, 16), np.float32), lse=lse)
    return lse * 1


def attend(v):
    return attention(Q, K, v, causal="start") * 1


def merge(part):
    out = torch.zeros(5, 2, 16)
    merge_attn_states(out, part, LSE, FIRST, LSE)
    return out * 1


def fill_cache(latents):
    cache = torch.zeros(2, 8, LAYER.rank + LAYER.rope)
    concat_and_cache_mla(latents, ROPE, cache, [0, 1, 2, 3, 4])
    return cache * 1


CALLS = {
    new_tokens: FIRST,
    new_tokens_into: FIRST,
    forward: ARGUMENTS["q"],
    forward_with_lse: ARGUMENTS["q"],
    attend: FIRST,
    merge: FIRST,
    fill_cache: ARGUMENTS["kv_c_normed"],
}


class Module(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def with_tangent(call, x):
    with forward_ad.dual_level():
        call(forward_ad.make_dual(x, x))


def among_fakes(call, x):
    with FakeTensorMode() as mode:
        call(mode.from_tensor(x))


def pretending(call, x):
    with FakeTensorMode():
        call(x)


WAYS = {
    "torch.jit.trace": lambda call, x: torch.jit.trace(call, (x,), check_trace=False),
    "make_fx": lambda call, x: make_fx(call)(x),
    "make_fx, fake": lambda call, x: make_fx(call, tracing_mode="fake")(x),
    "make_fx, symbolic": lambda call, x: make_fx(call, tracing_mode="symbolic")(x),
    "make_fx, before dispatch": lambda call, x: make_fx(call, pre_dispatch=True)(x),
    "symbolic_trace": lambda call, x: torch.fx.symbolic_trace(call),
    "export": lambda call, x: torch.export.export(Module(call), (x,), strict=False),
    "vmap": lambda call, x: torch.vmap(call)(torch.stack([x, x])),
    "grad": lambda call, x: torch.func.grad(lambda x: call(x).sum())(x),
    "vjp": lambda call, x: torch.func.vjp(call, x),
    "jvp": lambda call, x: torch.func.jvp(call, (x,), (x,)),
    "linearize": torch.func.linearize,
    "functionalize": lambda call, x: torch.func.functionalize(call)(x),
    "forward-mode AD": with_tangent,
    "fake tensors": among_fakes,
    "a fake mode": pretending,
}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.parametrize("way", WAYS)
def test_tracers_are_refused(way, call):
    named = r"^(q|v|k_pe|kv_c_normed|prefix_output|out|output|lse|kv_cache)(\.|: )"
    with pytest.raises((TypeError, ValueError), match=named):
        WAYS[way](call, CALLS[call])


@pytest.mark.parametrize(
    "way, said",
    {
        "torch.jit.trace": "torch.jit.trace is at work, which does not see",
        "make_fx": "ProxyTorchDispatchMode is at work",
        "make_fx, before dispatch": "a tracer of torch's is at work",
        "a fake mode": "FakeTensorMode is at work",
        "vmap": "a transform of torch.func",
        "jvp": "forward-mode AD",
    }.items(),
)
def test_refusals_say_who_is_at_work(way, said):
    with pytest.raises(ValueError, match=said):
        WAYS[way](new_tokens, FIRST)


def test_strict_export_says_that_it_is_native_code():
    with pytest.raises(Exception, match="native code of mla_prefill"):
        torch.export.export(Module(new_tokens), (FIRST,), strict=True)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_what_only_watches_is_let(call):
    """Modes that record nothing, and tensors that no transform has wrapped."""
    plain = CALLS[call]
    expected = call(plain)
    with FlopCounterMode(display=False):
        assert torch.equal(call(plain), expected)
    got = torch.vmap(lambda x: x * call(plain))(torch.ones(2, *expected.shape))
    assert torch.equal(got[1], expected)
    with torch.autograd.detect_anomaly(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(call(plain), expected)
