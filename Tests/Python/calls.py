# SPDX-License-Identifier: Apache-2.0
"""The package's calls, each with arguments that it takes."""

import numpy as np
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
    attention,
    concat_and_cache_mla,
    gather_and_maybe_dequant_cache,
    get_mla_prefill_backend,
    merge_attn_states,
    plan_context_chunks,
)

CPU = MLAPrefillBackendEnum.CPU.get_class()
PROBLEM, LAYER = Problem([5]), LayerProblem([5], [3])


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


def log_callback(callback):
    mla_prefill.set_log_callback(callback)
    mla_prefill.set_log_callback(None)


def cached():
    return np.zeros((2, 8, LAYER.rank + LAYER.rope), np.float32)


TENSORS = {"q": PROBLEM.q, "k": PROBLEM.k, "v": PROBLEM.v, "out": np.zeros((5, 2, 16), np.float32)}
SIDES = [np.zeros((5, 2, 16), np.float32), np.zeros((2, 5), np.float32)]
CHUNK = ContextChunk(query_start_loc=[0, 5], cu_seq_lens=[0, 5])
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
            weight_block=None,
        ),
    ),
    "forward": (
        layer_for(LAYER).forward,
        dict(
            **LAYER.tensors,
            out=np.zeros((5, 2, 16), np.float32),
            lse=np.zeros((2, 5), np.float32),
            output_scale=None,
            k_pe_cache=None,
            context_starts=[0],
            block_table_rows=[0],
            context_only=False,
            topk_indices=[[0, -1]] * 5,
            new_tokens_cached=False,
        ),
    ),
    "layer.workspace_size": (
        layer_for(LAYER).workspace_size,
        dict(
            query_start_loc=[0, 5],
            context_lens=[3],
            context_only=False,
            topk_indices=[[0, -1]] * 5,
            new_tokens_cached=False,
        ),
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
            k_pe_cache=None,
        ),
    ),
    "gather_and_maybe_dequant_cache": (
        gather_and_maybe_dequant_cache,
        dict(
            kv_cache=cached(),
            dst=np.zeros((3, LAYER.rank), np.float32),
            block_table=[[0]],
            cu_seq_lens=[0, 3],
            seq_starts=[1],
            cache_scale=1,
            cache_format="plain",
            k_pe_cache=None,
            k_pe=np.zeros((3, LAYER.rope), np.float32),
        ),
    ),
    "backend": (CPU, dict(**PROBLEM.arguments, vllm_config=None, device=None)),
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
    "attention": (
        attention,
        dict(
            **TENSORS,
            scale=0.1,
            causal="end",
            cu_seqlens_q=[0, 5],
            cu_seqlens_k=[0, 5],
            k_begin=[0],
            k_count=[5],
            return_lse=True,
            output_scale=None,
        ),
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
    "set_log_callback": (log_callback, dict(callback=print)),
    "set_num_threads": (mla_prefill.set_num_threads, dict(num_threads=0)),
    "set_verbose": (mla_prefill.set_verbose, dict(level=0, to_log=False)),
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
