# SPDX-License-Identifier: Apache-2.0
"""What is written: no memory that its owner calls immutable, all of what is returned."""

import numpy as np
import pytest
from calls import CHUNK, LAYER, PROBLEM, SIDES, TENSORS, cached
from reference import TYPES, Problem
from test_backends import RUNNABLE, backend_for
from test_layer import layer_for

from mla_prefill import (
    ContextChunk,
    PrefillMetadata,
    concat_and_cache_mla,
    gather_and_maybe_dequant_cache,
    merge_attn_states,
)


class Immutable:
    """An array behind a DLPack capsule that cannot say so, as JAX's are."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return 1, 0


class Versioned(Immutable):
    """An array behind a DLPack capsule that says whether it may be written."""

    def __dlpack__(self, **keywords):
        return self.array.__dlpack__(**keywords)


LATENTS, K_PE, ROWS = LAYER.kv_c_normed, LAYER.k_pe, np.ones((5, 2, 16), np.float32)
#: Each output of each call.
OUTPUTS = {
    "kv_cache": (cached, lambda x: concat_and_cache_mla(LATENTS, K_PE, x, [0, 1])),
    "dst": (
        lambda: np.zeros((2, LAYER.rank + LAYER.rope), np.float32),
        lambda x: gather_and_maybe_dequant_cache(cached() + 1, x, [[0]], [0, 2]),
    ),
    "k_pe": (
        lambda: np.zeros((2, LAYER.rope), np.float32),
        lambda x: gather_and_maybe_dequant_cache(
            cached() + 1, np.zeros((2, LAYER.rank), np.float32), [[0]], [0, 2], k_pe=x
        ),
    ),
    "out": (
        lambda: np.zeros((5, 2, 16), np.float32),
        lambda x: backend_for(PROBLEM).run_prefill_new_tokens(
            **{**TENSORS, "out": x}, return_softmax_lse=False
        ),
    ),
    "out of a chunk": (
        lambda: np.zeros((5, 2, 16), np.float32),
        lambda x: backend_for(PROBLEM).run_prefill_context_chunk(CHUNK, **{**TENSORS, "out": x}),
    ),
    "out of a layer": (
        lambda: np.zeros((5, 2, 16), np.float32),
        lambda x: layer_for(LAYER).forward(**LAYER.tensors, out=x),
    ),
    "lse": (
        lambda: np.zeros((2, 5), np.float32),
        lambda x: layer_for(LAYER).forward(**LAYER.tensors, lse=x),
    ),
    "output": (
        lambda: np.zeros((5, 2, 16), np.float32),
        lambda x: merge_attn_states(x, ROWS, SIDES[1], ROWS, SIDES[1]),
    ),
    "output_lse": (
        lambda: np.zeros((2, 5), np.float32),
        lambda x: merge_attn_states(np.zeros_like(ROWS), ROWS, SIDES[1], ROWS, SIDES[1], x),
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_may_be_immutable_is_not_written(name):
    make, call = OUTPUTS[name]
    parameter, array = name.split()[0], make()
    with pytest.raises(ValueError, match=rf"^{parameter}: may be immutable.*must be writable"):
        call(Immutable(array))
    fixed = array.copy()
    fixed.flags.writeable = False
    for wrapped in (fixed, Versioned(fixed)):
        with pytest.raises(ValueError, match=rf"^{parameter}: "):
            call(wrapped)
    assert not array.any() and not fixed.any()
    try:
        array.__dlpack__(max_version=(1, 0))
    except TypeError:
        return  # NumPy before 2.1 has no capsule that can tell.
    call(Versioned(array))
    assert array.any()


@pytest.mark.parametrize("name", OUTPUTS)
def test_arrays_of_jax_are_not_written(name):
    jax = pytest.importorskip("jax")
    make, call = OUTPUTS[name]
    array = jax.numpy.asarray(make())
    with pytest.raises(ValueError, match=rf"^{name.split()[0]}: "):
        call(array)
    assert not np.asarray(array).any()


def test_arrays_of_jax_are_read():
    jax = pytest.importorskip("jax")
    q, k, v = (jax.numpy.asarray(tensor) for tensor in (PROBLEM.q, PROBLEM.k, PROBLEM.v))
    backend = backend_for(PROBLEM)
    backend.prepare_metadata(PrefillMetadata(query_start_loc=jax.numpy.asarray(PROBLEM.queries)))
    out, lse = backend.run_prefill_new_tokens(q, k, v, True)
    assert isinstance(out, jax.Array) and isinstance(lse, jax.Array)
    PROBLEM.check(np.asarray(out), np.asarray(lse))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", RUNNABLE)
def test_rows_beyond_the_batch(name, dtype):
    """New outputs hold no memory that nobody has written; a caller's stay as they are."""
    problem = Problem([3, 4], dtype=dtype)
    q, k, v = (
        np.concatenate([t, np.full((3, *t.shape[1:]), np.nan, t.dtype)])
        for t in (problem.q, problem.k, problem.v)
    )
    backend = backend_for(problem, name)
    given = np.full((10, 2, 16), 7, np.float32)
    chunk = ContextChunk(query_start_loc=problem.queries, cu_seq_lens=problem.keys)
    dirty_heap(q)
    for out, lse in (
        backend.run_prefill_new_tokens(q, k, v, True),
        backend.run_prefill_context_chunk(chunk, q, k, v),
        backend.run_prefill_new_tokens(q, k, v, True, out=given),
    ):
        assert (out[7:] == (7 if out is given else 0)).all() and np.isfinite(out[:7]).all()
        assert np.isneginf(lse[:, 7:]).all() and np.isfinite(lse[:, :7]).all()
    problem.check(given[:7], lse[:, :7])


def dirty_heap(q):
    """What is allocated next is likely to be this."""
    for size in (q.nbytes, 10 * 2 * 16 * q.itemsize, 2 * 10 * 4):
        for _ in range(20):
            np.full(size, 0x55, np.uint8)
