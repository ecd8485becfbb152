# SPDX-License-Identifier: Apache-2.0
"""Calls inside torch.compile: it breaks its graph there, and they run as they do without it."""

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from reference import Problem
from reference_layer import LayerProblem
from test_backends import RUNNABLE
from test_layer_torch import arguments_of, layer_for
from test_python_backends_torch import Mean
from test_torch import backend_for, tensors_of
from torch._dynamo.utils import counters

from mla_prefill import (
    ContextChunk,
    PrefillMetadata,
    attention,
    concat_and_cache_mla,
    gather_and_maybe_dequant_cache,
    merge_attn_states,
    plan_context_chunks,
    register_mla_prefill_backend,
)

NEW, CONTEXT, LAYER = Problem([7, 3]), Problem([7, 3], context=[5, 6]), LayerProblem([5], [3])
CHUNK = ContextChunk(query_start_loc=CONTEXT.queries, cu_seq_lens=CONTEXT.keys)
NEW_TENSORS, CONTEXT_TENSORS = tensors_of(NEW), tensors_of(CONTEXT)
ARGUMENTS = arguments_of(LAYER)


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    counters.clear()


def run_both(backend):
    q, k, v = NEW_TENSORS
    out, lse = backend.run_prefill_new_tokens(q * 1, k, v, True)
    part, part_lse = backend.run_prefill_context_chunk(CHUNK, *CONTEXT_TENSORS)
    return out * 1, lse * 1, part * 1, part_lse * 1


def run_layer(layer):
    out, lse = torch.empty(5, 2, 16), torch.empty(2, 5)
    result = layer.forward(**{**ARGUMENTS, "q": ARGUMENTS["q"] * 1}, out=out, lse=lse)
    return result * 1, lse * 1, layer.forward(**ARGUMENTS) * 1


def attend():
    q, k, v = NEW_TENSORS
    out, lse = attention(q * 1, k, v, causal="end", return_lse=True)
    heads_first = attention(*(tensor.transpose(0, 1)[None] for tensor in NEW_TENSORS), out=None)
    return out * 1, lse * 1, heads_first * 1


def merge():
    parts = [tensor * 1 for tensor in NEW_TENSORS[:2]]
    lse, out = torch.zeros(2, 10), torch.zeros_like(parts[0])
    merge_attn_states(out, parts[0], lse, parts[1], lse)
    return (out * 1,)


def fill_cache():
    cache = torch.zeros(2, 8, LAYER.rank + LAYER.rope)
    latents, rope = ARGUMENTS["kv_c_normed"] * 1, ARGUMENTS["k_pe"] * 1
    concat_and_cache_mla(latents, rope, cache, torch.arange(5))
    return (cache * 1,)


def gather():
    cache, dst = torch.arange(2 * 8 * 12.0).reshape(2, 8, 12) * 1, torch.zeros(9, 12)
    table = torch.tensor([[1, 0]], dtype=torch.int32)
    gather_and_maybe_dequant_cache(cache, dst, table, [0, 9], [3])
    return (dst * 1,)


def plan():
    lengths = torch.tensor([30, 4], dtype=torch.int32) * 1
    chunks = plan_context_chunks(lengths, 16, 4, query_start_loc=[0, 2, 3])
    return (torch.tensor([chunk.cu_seq_lens[-1] for chunk in chunks]) * 1,)


def prepare():
    backend = backend_for(NEW)
    offsets = torch.tensor(NEW.queries, dtype=torch.int32) * 1
    backend.prepare_metadata(PrefillMetadata(query_start_loc=offsets))
    supported = backend.supports_out() and not backend.supports_quant_output(torch.int8)
    return (*run_both(backend), torch.tensor(supported))


def create():
    weights = torch.nn.functional.pad(torch.from_numpy(LAYER.kv_b_proj), (0, 0)) * 1
    layer = layer_for(LAYER)
    other = type(layer)(**LAYER.dimensions, kv_b_proj=weights)
    size = torch.tensor(other.workspace_size([0, 5], [3]))
    return (*run_layer(layer), other.forward(**ARGUMENTS) * 1, size)


def of_objects():
    """Calls of objects that were made before."""
    backend, layer = backend_for(NEW), layer_for(LAYER)
    return {"backend": lambda: run_both(backend), "layer": lambda: run_layer(layer)}


PLAIN = (attend, merge, fill_cache, gather, plan, prepare, create)
CALLS = {call.__name__: call for call in PLAIN} | of_objects()


def compare(call, backend):
    expected = call()
    compiled = torch.compile(call, backend=backend)
    for _ in range(2):
        got = compiled()
        assert len(got) == len(expected) > 0
        assert all(map(torch.equal, got, expected))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", CALLS)
def test_calls(name, backend):
    compare(CALLS[name], backend)


def test_calls_of_inductor():
    compare(CALLS["backend"], "inductor")
    compare(CALLS["layer"], "inductor")


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_backend(name):
    backend = backend_for(NEW, name)
    compare(lambda: run_both(backend), "aot_eager")


def test_backends_of_python():
    """Called as they are, which torch traces, and by way of the library, which it does not."""
    register_mla_prefill_backend("MEAN")(Mean)
    problem = Problem([6])
    q, k, v = tensors_of(problem)
    import mla_prefill.registered

    for made in (Mean, mla_prefill.registered.MEAN):
        backend = made(**problem.arguments)
        backend.prepare_metadata(PrefillMetadata(query_start_loc=torch.tensor(problem.queries)))

        def run(backend=backend):
            out = torch.empty(6, 2, 16)
            return (backend.run_prefill_new_tokens(q * 1, k, v, False, out=out) * 1,)

        compare(run, "aot_eager")


def test_nothing_is_traced_within():
    """Nor anew for each layer of a model: the caller's own two pieces are all."""

    class Model(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, q):
            return self.layer.forward(**{**ARGUMENTS, "q": q * 1}) * 1

    layers = [layer_for(LAYER) for _ in range(12)]
    call = torch.compile(Model.forward, backend="eager")
    for layer in layers:
        call(Model(layer), ARGUMENTS["q"])
    (reason,) = counters["graph_break"]
    assert "native code of mla_prefill" in reason
    assert counters["stats"]["unique_graphs"] == 2


def test_whole_graphs_are_refused_with_the_reason():
    layer = layer_for(LAYER)
    call = torch.compile(lambda: layer.forward(**ARGUMENTS), backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="native code of mla_prefill"):
        call()


@pytest.mark.parametrize("order", ["before", "after"])
def test_torch_may_come_later(order):
    """After the package, and after the objects too: then a trace begins within the first call."""
    program = """
import sys
import mla_prefill as m
import numpy as np

if sys.argv[1] == "before":
    import torch
layer = m.MLAPrefillLayer(1, 0.1, 8, 8, 0, 8, np.ones((16, 8), np.float32))
# Whether torch has been told.
assert bool(m._untraced._codes) == ("torch" not in sys.modules)
backend = m.MLAPrefillBackendEnum.CPU.get_class()(1, 0.1, 8, 8, 0, 8)
backend.prepare_metadata(m.PrefillMetadata(query_start_loc=[0, 4]))
import torch

x, latents, lse = torch.randn(4, 1, 8), torch.randn(4, 8), torch.zeros(1, 4)
chunk = m.ContextChunk(query_start_loc=[0, 4], cu_seq_lens=[0, 4])
out = torch.zeros(4, 1, 8)

def call():
    m.merge_attn_states(out, x * 1, lse, x, lse)
    new = backend.run_prefill_new_tokens(x * 1, x, x, True)
    part = backend.run_prefill_context_chunk(chunk, x * 1, x, x)
    return out * 1, *new, *part, layer.forward(x * 1, latents, None) * 1

got = torch.compile(call, backend="eager")()
assert all(map(torch.equal, got, call()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, order], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
