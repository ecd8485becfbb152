# SPDX-License-Identifier: Apache-2.0
"""Backends registered in C++, seen and run from Python."""

import threading

import numpy as np
import pytest
from reference import Problem
from test_backends import backend_for

import mla_prefill
from mla_prefill import (
    MLAPrefillBackend,
    MLAPrefillBackendEnum,
    MLAPrefillConfig,
    get_mla_prefill_backend,
    register_mla_prefill_backend,
)


def test_cpp_backend_is_a_class(cpp):
    cpp.register_doubling(b"DOUBLING_MEMBER")
    member = MLAPrefillBackendEnum.DOUBLING_MEMBER
    assert member.get_path() == "mla_prefill.registered.DOUBLING_MEMBER"
    backend_class = member.get_class()
    assert issubclass(backend_class, MLAPrefillBackend) and backend_class is member.get_class()
    assert backend_class.get_name() == "DOUBLING"
    config = mla_prefill.MLAPrefillSelectorConfig("bfloat16")
    assert backend_class.validate_configuration(None, config) == ["only float32 is supported"]
    problem = Problem([3, 2])
    backend = backend_for(problem, "DOUBLING_MEMBER")
    out, lse = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, True)
    assert (out == 2 * problem.v).all() and (lse == np.arange(5)).all()
    with pytest.raises(ValueError, match="DOUBLING: knows no context"):
        backend.run_prefill_context_chunk(PrefillMetadataLike(), problem.q, problem.k, problem.v)


class PrefillMetadataLike:
    query_start_loc = cu_seq_lens = (0, 3, 5)


def test_cpp_backend_is_selected(cpp):
    cpp.register_doubling(b"DOUBLING_MEMBER")
    config = MLAPrefillConfig(backend="DOUBLING_MEMBER", dtype="float32")
    assert get_mla_prefill_backend(config) is MLAPrefillBackendEnum.DOUBLING_MEMBER.get_class()
    with pytest.raises(ValueError, match=r"Reason: \['only float32 is supported'\]"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="DOUBLING_MEMBER"))


def test_cpp_override_of_a_member(cpp):
    cpp.override_with_doubling(b"FLASH_ATTN")
    member = MLAPrefillBackendEnum.FLASH_ATTN
    assert member.is_overridden()
    assert member.get_path() == "mla_prefill.registered.FLASH_ATTN"
    problem = Problem([3, 2])
    backend = backend_for(problem, "FLASH_ATTN")
    out = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False)
    assert (out == 2 * problem.v).all()
    member.clear_override()
    assert member.get_path() == member.value
    problem.check(
        backend_for(problem, "FLASH_ATTN").run_prefill_new_tokens(
            problem.q, problem.k, problem.v, False
        )
    )


def test_python_class_derived_from_a_cpp_backend(cpp):
    cpp.register_doubling(b"DOUBLING_MEMBER")
    base = MLAPrefillBackendEnum.DOUBLING_MEMBER.get_class()

    @register_mla_prefill_backend(MLAPrefillBackendEnum.DOUBLING_MEMBER)
    class Negative(base):
        def run_prefill_new_tokens(self, *arguments, **keywords):
            out, lse = super().run_prefill_new_tokens(*arguments, **keywords)
            out *= -1
            return out, lse

    problem = Problem([3, 2])
    out, _ = backend_for(problem, "DOUBLING_MEMBER").run_prefill_new_tokens(
        problem.q, problem.k, problem.v, True
    )
    assert (out == -2 * problem.v).all()


def test_other_threads_run_while_a_kernel_does(cpp):
    cpp.register_waiting(b"WAITING")
    problem = Problem([3, 2])
    backend = backend_for(problem, "WAITING")
    other = threading.Thread(target=cpp.release)
    timer = threading.Timer(0.05, other.start)
    timer.start()
    out = backend.run_prefill_new_tokens(problem.q, problem.k, problem.v, False)
    timer.join()
    other.join()
    assert (out == 2 * problem.v).all()
