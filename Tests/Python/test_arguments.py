# SPDX-License-Identifier: Apache-2.0
"""Whatever stands where an argument belongs: taken, or refused by the argument's name."""

import inspect

import ml_dtypes
import numpy as np
import pytest
from reference import Problem
from reference_layer import LayerProblem
from test_backends import backend_for
from test_layer import layer_for

import mla_prefill
from mla_prefill import (
    ChunkedContextMetadata,
    ContextChunk,
    MLADimensions,
    MLAPrefillBackendEnum,
    MLAPrefillConfig,
    MLAPrefillLayer,
    MLAPrefillSelectorConfig,
    PrefillMetadata,
    concat_and_cache_mla,
    get_mla_prefill_backend,
    merge_attn_states,
    plan_context_chunks,
)

CPU = MLAPrefillBackendEnum.CPU.get_class()
PROBLEM, LAYER = Problem([5]), LayerProblem([5], [3])


class Nameless:
    """Refuses what it is asked, and does not know for which argument."""

    def __index__(self):
        raise RuntimeError("no")

    __float__ = __bool__ = __len__ = __iter__ = __index__


#: What callers have not set, or set to something else.
WRONG = [
    None,
    True,
    -3,
    1 << 40,
    1 << 70,
    10**400,
    1.5,
    float("nan"),
    float("inf"),
    1j,
    "",
    "text",
    "N\0L",
    "\ud800",
    b"bytes",
    bytearray(4),
    [],
    [[1], [2, 3]],
    [None],
    ["x"],
    {},
    object(),
    object,
    Nameless(),
    np.float32(2),
    np.int64(-3),
    np.array(-3),
    np.array(1.5),
    np.zeros((2, 0)),
    np.zeros(3, ">f4"),
    np.zeros(3, ">i4"),
    np.zeros(3, [("a", "f4"), ("b", "i4")]),
    np.zeros(3, object),
    np.zeros(3, "datetime64[s]"),
    np.zeros(3, "U4"),
    np.zeros((3, 2), np.uint16),
    np.zeros(3, np.complex64),
    np.zeros((3, 2, 1, 1, 2), np.float32),
    np.ma.masked_array([1, 2, 3], [0, 1, 0]),
]


def batch(query_start_loc):
    backend_for(PROBLEM).prepare_metadata(PrefillMetadata(query_start_loc=query_start_loc))


def announce(chunks):
    context = ChunkedContextMetadata(chunks=chunks)
    backend_for(PROBLEM).prepare_metadata(
        PrefillMetadata(query_start_loc=PROBLEM.queries, chunked_context=context)
    )


def choose(**fields):
    return get_mla_prefill_backend(MLAPrefillConfig(**fields))


def register(backend, class_path):
    mla_prefill.register_mla_prefill_backend(backend, class_path)
    if isinstance(backend, str):
        mla_prefill.remove_mla_prefill_backend(backend)


def register_member(name, value):
    remove(MLAPrefillBackendEnum.register(name, value))


def remove(backend):
    if isinstance(backend, str) and backend == "NEW":
        MLAPrefillBackendEnum.register("NEW", "a.B")
    mla_prefill.remove_mla_prefill_backend(backend)


def cached():
    return np.zeros((2, 8, LAYER.rank + LAYER.rope), np.float32)


TENSORS = {"q": PROBLEM.q, "k": PROBLEM.k, "v": PROBLEM.v, "out": np.zeros((5, 2, 16), np.float32)}
SIDES = [np.zeros((5, 2, 16), np.float32), np.zeros((2, 5), np.float32)]
CHUNK = ContextChunk(query_start_loc=[0, 5], cu_seq_lens=[0, 5])
#: Each call with arguments that it takes.
CALLS = {
    "layer": (
        MLAPrefillLayer,
        dict(
            **LAYER.dimensions,
            kv_b_proj=LAYER.kv_b_proj,
            backend="CPU",
            dtype="float32",
            cache_dtype="float32",
            cache_scale=1,
            workspace_bound=1 << 26,
            weight_scales=None,
            cache_format="plain",
            algorithm="auto",
        ),
    ),
    "forward": (
        layer_for(LAYER).forward,
        dict(
            **LAYER.tensors,
            out=np.zeros((5, 2, 16), np.float32),
            lse=np.zeros((2, 5), np.float32),
            output_scale=None,
        ),
    ),
    "layer.workspace_size": (
        layer_for(LAYER).workspace_size,
        dict(query_start_loc=[0, 5], context_lens=[3]),
    ),
    "concat_and_cache_mla": (
        concat_and_cache_mla,
        dict(
            kv_c_normed=LAYER.kv_c_normed,
            k_pe=LAYER.k_pe,
            kv_cache=cached(),
            slot_mapping=[0, 1],
            cache_scale=1,
            cache_format="plain",
        ),
    ),
    "backend": (CPU, dict(**PROBLEM.arguments, vllm_config=None)),
    "prepare_metadata": (batch, dict(query_start_loc=[0, 5])),
    "announced chunks": (announce, dict(chunks=[CHUNK])),
    "run_prefill_new_tokens": (
        backend_for(PROBLEM).run_prefill_new_tokens,
        dict(**TENSORS, return_softmax_lse=True, output_scale=None),
    ),
    "run_prefill_context_chunk": (
        backend_for(PROBLEM).run_prefill_context_chunk,
        dict(chunk=CHUNK, **TENSORS),
    ),
    "merge_attn_states": (
        merge_attn_states,
        dict(
            output=np.zeros((5, 2, 16), np.float32),
            prefix_output=SIDES[0],
            prefix_lse=SIDES[1],
            suffix_output=SIDES[0],
            suffix_lse=SIDES[1],
            output_lse=None,
            prefill_tokens_with_context=5,
            output_scale=None,
        ),
    ),
    "plan_context_chunks": (
        plan_context_chunks,
        dict(
            context_lens=[3, 4],
            row_budget=16,
            block_size=4,
            query_start_loc=[0, 1, 2],
            max_context_chunk=8,
        ),
    ),
    "set_num_threads": (mla_prefill.set_num_threads, dict(num_threads=0)),
    "use_openmp_threads": (mla_prefill.use_openmp_threads, dict(enabled=False)),
    "register": (register, dict(backend="NEW", class_path="a.B")),
    "enum.register": (register_member, dict(name="NEW", value="a.B")),
    "remove": (remove, dict(backend="NEW")),
    "selector": (
        choose,
        dict(
            dtype="float32",
            qk_nope_head_dim=8,
            qk_rope_head_dim=8,
            v_head_dim=8,
            backend="CPU",
            platform=0,
            device_capability=None,
            batch_invariant=False,
        ),
    ),
    "get_mla_prefill_backend": (get_mla_prefill_backend, dict(vllm_config=None)),
    "backends": (mla_prefill.backends, dict(config=None)),
    "validate_configuration": (
        CPU.validate_configuration,
        dict(device_capability=None, selector_config=MLAPrefillSelectorConfig("float32")),
    ),
    "supports_mla_dimensions": (
        CPU.supports_mla_dimensions,
        dict(mla_dimensions=MLADimensions(qk_nope_head_dim=8, qk_rope_head_dim=0, v_head_dim=8)),
    ),
}


def test_all_parameters_are_tried():
    public = [getattr(mla_prefill, name) for name in mla_prefill.__all__]
    tried = {id(call): set(arguments) for call, arguments in CALLS.values()}
    through = {
        "register_mla_prefill_backend": {"backend", "class_path"},
        "remove_mla_prefill_backend": {"backend"},
    }
    for function in filter(inspect.isfunction, public):
        parameters = set(inspect.signature(function).parameters)
        assert tried.get(id(function), through.get(function.__name__, set())) == parameters
    for call, arguments in (CALLS[name] for name in ("layer", "forward", "backend")):
        assert set(inspect.signature(call).parameters) == set(arguments)


def unnamed_refusals(call, arguments, wrong):
    """What refuses one of `wrong`, by name, in place of an argument, and does not name that."""
    unnamed = []
    for parameter in arguments:
        for kind, value in wrong.items():
            try:
                call(**{**arguments, parameter: value})
            except (TypeError, ValueError) as error:
                text = str(error)
                if parameter not in text or "incompatible function arguments" in text:
                    unnamed.append(f"{parameter}={kind}: {text}")
            except Exception as error:
                unnamed.append(f"{parameter}={kind}: {error!r}")
            mla_prefill.set_num_threads(0)
    return unnamed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_named(name):
    unnamed = unnamed_refusals(*CALLS[name], {repr(wrong): wrong for wrong in WRONG})
    assert not unnamed, "\n".join(unnamed)


# --- Memory that its owner calls immutable ------------------------------------


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


# --- Integers that are only read ----------------------------------------------


class OldArray(np.ndarray):
    """An array with the DLPack export of NumPy before 2.1."""

    def __dlpack__(self, *, stream=None):
        if not self.flags.writeable:
            raise BufferError("Cannot export readonly array")
        return super().__dlpack__(stream=stream)


def broadcast(values, dtype):
    array = np.array(values, dtype)
    return np.broadcast_to(array, array.shape)


READ_ONLY = {
    "frombuffer": lambda values, dtype: np.frombuffer(np.array(values, dtype).tobytes(), dtype),
    "broadcast": broadcast,
    "old": lambda values, dtype: broadcast(values, dtype).view(OldArray),
    "memoryview": lambda values, dtype: memoryview(np.array(values, dtype)).toreadonly(),
}


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kind", READ_ONLY)
def test_read_only_integers(kind, dtype):
    def fixed(values):
        shape = np.shape(values)
        array = READ_ONLY[kind](values, dtype)
        return array if kind == "memoryview" else array.reshape(shape)

    table = [LAYER.block_table[0]]
    context = {"block_table": fixed(table), "context_lens": fixed([3])}
    queries = fixed([0, 5])
    LAYER.check(
        layer_for(LAYER).forward(**{**LAYER.tensors, **context, "query_start_loc": queries})
    )
    cache = cached()
    concat_and_cache_mla(LATENTS, K_PE, cache, fixed([0, 1, 2, 3, 9]))
    assert (cache[1, 1, : LAYER.rank] == LATENTS[4]).all()
    batch(queries)
    assert plan_context_chunks(fixed([3]), 16, 16, queries)[0].seq_lens == (3,)


def test_read_only_tensors_of_old_numpy():
    arrays = {}
    for name in "qkv":
        for kind in (np.float32, np.float16, ml_dtypes.bfloat16):
            array = getattr(PROBLEM, name).astype(kind).view(OldArray)
            array.flags.writeable = False
            arrays.setdefault(kind, []).append(array)
    for tensors in arrays.values():
        backend_for(PROBLEM).run_prefill_new_tokens(*tensors, False)


# --- Numbers that nobody reads ------------------------------------------------


@pytest.mark.parametrize("kind", [np.array, list])
def test_block_numbers_that_are_not_read_may_be_anything(kind):
    problem = LayerProblem([7, 5], [20, 3])
    first, second = problem.block_table[0], problem.block_table[1]
    big = [1 << 40, -(1 << 62)]
    table = [[*first, big[0]], [*second, *big, 2**31], [*big, *big]]
    layer = layer_for(problem)
    problem.check(layer.forward(**{**problem.tensors, "block_table": kind(table)}))
    table[1][0] = 1 << 40
    with pytest.raises(ValueError, match=r"^block_table\[1\]\[0\] = 1099511627776: must fit 32"):
        layer.forward(**{**problem.tensors, "block_table": kind(table)})


def endless(kind):
    return np.broadcast_to(kind(0), 2**32 + 1)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_lists_that_no_memory_holds(kind):
    """Broadcasts of one element: their length is no count of requests, cut or not."""
    many = endless(kind)
    for name, call in {
        "query_start_loc": lambda: batch(many),
        "query_start_loc.*": lambda: layer_for(LAYER).forward(
            **{**LAYER.tensors, "query_start_loc": many}
        ),
        "context_lens": lambda: layer_for(LAYER).workspace_size([0, 5], many),
        "slot_mapping": lambda: concat_and_cache_mla(LATENTS, K_PE, cached(), many),
        "context_lens.*": lambda: plan_context_chunks(many, 16),
        "chunk.cu_seq_lens": lambda: backend_for(PROBLEM).run_prefill_context_chunk(
            ContextChunk(query_start_loc=[0, 5], cu_seq_lens=many), **TENSORS
        ),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: has 4294967297 entries, must have at most"):
            call()
    with pytest.raises(ValueError, match="slot_mapping: has more entries, must have at most 6"):
        concat_and_cache_mla(LATENTS, K_PE, cached(), range(2**40))
    table = np.broadcast_to(np.int64(LAYER.block_table[0][0]), (2**28, 2**31 - 1))
    problem = LayerProblem([5], [3])
    problem.check(layer_for(problem).forward(**{**problem.tensors, "block_table": table}))


def test_unaligned_and_scattered_tables():
    problem = LayerProblem([7, 5], [20, 3])
    rows = np.array([[*problem.block_table[0]], [*problem.block_table[1], -1, -1]], np.int32)
    unaligned = np.zeros(rows.nbytes + 1, np.uint8)[1:].view(np.int32).reshape(rows.shape)
    unaligned[...] = rows
    records = np.zeros(rows.shape, [("flag", "i1"), ("block", "i4")])
    records["block"] = rows
    for table in (unaligned, records["block"], np.asfortranarray(rows), rows[::-1].copy()[::-1]):
        problem.check(layer_for(problem).forward(**{**problem.tensors, "block_table": table}))
