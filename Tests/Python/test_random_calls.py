# SPDX-License-Identifier: Apache-2.0
"""2,000 random calls: each agrees with float64 or raises, none hurts the interpreter."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import TYPES, Problem
from test_backends import RUNNABLE

from mla_prefill import ContextChunk, MLAPrefillBackendEnum, PrefillMetadata

#: Ways to lay out the same numbers that the library must read in place.
LAYOUTS = {
    "dense": lambda t: t,
    "wider rows": lambda t: np.concatenate([t, t], -1)[..., : t.shape[-1]],
    "every second row": lambda t: np.repeat(t, 2, 0)[::2],
    "heads first": lambda t: np.ascontiguousarray(t.transpose(1, 0, 2)).transpose(1, 0, 2),
    "more rows than used": lambda t: t,
}

#: Ways to break an argument: what they give must be refused.
BREAKAGES = [
    ("another type", lambda t: t.astype(np.float64)),
    ("integers", lambda t: t.astype(np.int16)),
    ("complex", lambda t: t.astype(np.complex64)),
    ("objects", lambda t: t.astype(object)),
    ("one row less", lambda t: t[:-1]),
    ("no rows", lambda t: t[:0]),
    ("no heads", lambda t: t[:, :0]),
    ("one head more", lambda t: np.concatenate([t, t[:, :1]], 1)),
    ("one column more", lambda t: np.concatenate([t, t[..., :1]], 2)),
    ("flat", lambda t: t.reshape(-1)),
    ("one dimension more", lambda t: t[None]),
    ("five dimensions", lambda t: t[None, :, None]),
    ("0-d", lambda t: t.reshape(-1)[0]),
    ("upside down", lambda t: t[::-1]),
    ("columns backwards", lambda t: t[..., ::-1]),
    ("columns apart", lambda t: np.repeat(t, 2, -1)[..., ::2]),
    ("a list", lambda t: t.tolist()),
    ("None", lambda t: None),
    ("a class", lambda t: type(t)),
    ("a number", lambda t: 3),
]

OFFSETS_BREAKAGES = [
    ("falling", lambda o: [0, *o[:0:-1], -1]),
    ("beyond the rows", lambda o: [*o[:-1], o[-1] + 1]),
    ("far beyond", lambda o: [*o[:-1], 2**31 - 1]),
    ("too wide", lambda o: [*o[:-1], 2**40]),
    ("not from 0", lambda o: [1, *o[1:]]),
    ("negative", lambda o: [-1, *o[1:]]),
    ("floats", lambda o: np.array(o, np.float32)),
    ("a table", lambda o: np.array([o, o])),
    ("nothing", lambda o: []),
    ("None", lambda o: None),
]


@st.composite
def problems(draw):
    lengths = draw(st.lists(st.integers(0, 24), max_size=5))
    context = draw(st.none() | st.just("context"))
    if context:
        context = [draw(st.integers(0, 40)) for _ in lengths]
    return Problem(
        lengths,
        heads=draw(st.integers(1, 4)),
        nope=draw(st.integers(1, 70)),
        rope=draw(st.integers(0, 40)),
        value=draw(st.integers(1, 70)),
        dtype=draw(st.sampled_from(list(TYPES))),
        context=context,
        seed=draw(st.integers(0, 5)),
    )


@st.composite
def calls(draw):
    problem = draw(problems())
    tensors = {
        name: LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))](getattr(problem, name))
        for name in "qkv"
    }
    for tensor in tensors.values():
        tensor.flags.writeable = draw(st.booleans())
    rows = problem.queries[-1]
    out_type = draw(st.sampled_from([None, *TYPES]))
    if out_type:
        padding = draw(st.integers(0, 3))
        wide = np.full((rows, problem.heads, problem.value + padding), 7, TYPES[out_type])
        tensors["out"] = wide[..., : problem.value]
    broken = draw(st.none() | st.sampled_from([*tensors, "offsets"]))
    breakage = broken and draw(
        st.sampled_from(OFFSETS_BREAKAGES if broken == "offsets" else BREAKAGES)
    )
    return draw(st.sampled_from(RUNNABLE)), problem, tensors, draw(st.booleans()), broken, breakage


def run(name, problem, tensors, offsets, return_lse):
    backend = MLAPrefillBackendEnum[name].get_class()(**problem.arguments)
    if problem.context is None:
        backend.prepare_metadata(PrefillMetadata(query_start_loc=offsets))
        result = backend.run_prefill_new_tokens(**tensors, return_softmax_lse=return_lse)
        return result if return_lse else (result, None)
    backend.prepare_metadata(PrefillMetadata(query_start_loc=problem.queries))
    chunk = ContextChunk(query_start_loc=offsets, cu_seq_lens=problem.keys)
    return backend.run_prefill_context_chunk(chunk, **tensors)


@settings(
    max_examples=2000,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(calls())
def test_random_calls(call):
    name, problem, tensors, return_lse, broken, breakage = call
    offsets = problem.queries
    try:
        if broken == "offsets":
            offsets = breakage[1](offsets)
        elif broken:
            tensors[broken] = breakage[1](tensors[broken])
    except (IndexError, ValueError):
        return  # An empty tensor cannot be broken in every way.
    try:
        out, lse = run(name, problem, tensors, offsets, return_lse)
    except (TypeError, ValueError) as error:
        refused_shape = name == "TRTLLM_RAGGED" and "TRTLLM ragged" in str(error)
        assert broken or refused_shape, f"{name} refused a good call: {error}"
        assert str(error)
        return
    # What a breakage leaves as it was (no rows of none) is a good call.
    if "out" in tensors and tensors["out"] is not None:
        assert out is tensors["out"]
        if out.dtype != problem.q.dtype:
            out = out.astype(np.float64)
            problem.dtype = min(
                problem.dtype, str(tensors["out"].dtype), key="bfloat16 float16 float32".index
            )
    problem.check(out, lse)
