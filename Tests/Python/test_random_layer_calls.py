# SPDX-License-Identifier: Apache-2.0
"""1,000 random calls of the layer: each agrees with float64 or raises."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import TYPES
from reference_layer import CACHE_TYPES, LayerProblem, outputs
from test_layer import layer_for
from test_layer_arguments import ERRORS, TENSORS
from test_random_calls import BREAKAGES, LAYOUTS

#: NaN in a cache that a breakage turns into integers.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast")


@st.composite
def calls(draw):
    lengths = draw(st.lists(st.integers(0, 20), max_size=4))
    problem = LayerProblem(
        lengths,
        [draw(st.integers(0, 40)) for _ in lengths],
        heads=draw(st.integers(1, 4)),
        rank=draw(st.integers(1, 70)),
        nope=draw(st.integers(1, 70)),
        rope=draw(st.integers(0, 40)),
        value=draw(st.integers(1, 70)),
        block_size=draw(st.integers(1, 20)),
        dtype=draw(st.sampled_from(list(TYPES))),
        cache_dtype=draw(st.none() | st.sampled_from(list(CACHE_TYPES))),
        seed=draw(st.integers(0, 5)),
    )
    arguments = dict(problem.tensors)
    if draw(st.booleans()):
        arguments |= outputs(problem, problem.q.dtype)
    for name in ("q", "kv_c_normed", "k_pe"):
        layout = draw(st.sampled_from(list(LAYOUTS)))
        if layout != "heads first":
            arguments[name] = LAYOUTS[layout](arguments[name])
    broken = draw(st.none() | st.sampled_from([name for name in TENSORS if name in arguments]))
    breakage = broken and draw(st.sampled_from(BREAKAGES))
    algorithm = draw(st.sampled_from(["auto", "up_projected", "absorbed"]))
    return problem, arguments, algorithm, broken, breakage


@settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(calls())
def test_random_calls(call):
    problem, arguments, algorithm, broken, breakage = call
    if broken:
        try:
            arguments[broken] = breakage[1](arguments[broken])
        except (IndexError, ValueError):
            return  # An empty tensor cannot be broken in every way.
    try:
        out = layer_for(problem, algorithm=algorithm).forward(**arguments)
    except ERRORS as error:
        assert broken, f"refused a good call: {error}"
        assert str(error)
        return
    # What a breakage leaves as it was (no rows of none) is a good call.
    lse = arguments.get("lse")
    problem.check(out, lse)
