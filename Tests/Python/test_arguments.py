# SPDX-License-Identifier: Apache-2.0
"""Whatever stands where an argument belongs: taken, or refused by the argument's name."""

import inspect
import sys

import numpy as np
import pytest
from calls import CALLS, unnamed_refusals

import mla_prefill


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


def test_all_parameters_are_tried():
    public = [getattr(mla_prefill, name) for name in mla_prefill.__all__]
    tried = {id(call): set(arguments) for call, arguments in CALLS.values()}
    through = {
        "register_mla_prefill_backend": {"backend", "class_path"},
        "remove_mla_prefill_backend": {"backend"},
        "set_log_callback": {"callback"},
    }
    for function in filter(inspect.isfunction, public):
        parameters = set(inspect.signature(function).parameters)
        assert tried.get(id(function), through.get(function.__name__, set())) == parameters
    for call, arguments in (CALLS[name] for name in ("layer", "forward", "backend")):
        assert set(inspect.signature(call).parameters) == set(arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_wrong_arguments_are_named(name):
    unnamed = unnamed_refusals(*CALLS[name], {repr(wrong): wrong for wrong in WRONG})
    assert not unnamed, "\n".join(unnamed)


def test_a_flag_is_no_integer():
    for flag in (True, False):
        with pytest.raises(TypeError, match="^num_threads: must be an integer, not bool"):
            mla_prefill.set_num_threads(flag)


def test_integers_that_do_not_fit_are_not_cut():
    for number in (1 << 70, (1 << 64) + 1, -(1 << 70)):
        with pytest.raises(ValueError, match="^num_threads: must fit 64 bits"):
            mla_prefill.set_num_threads(number)


def test_texts_are_no_numbers():
    for text in ("0.5", "2", b"2"):
        with pytest.raises(TypeError, match=f"^scale: must be a number, not {type(text).__name__}"):
            mla_prefill.MLAPrefillBackendEnum.CPU.get_class()(2, text, 0, 16, 16, 16)


def test_flags_are_true_or_false():
    for number in (2, -1, 1 << 70):
        with pytest.raises(TypeError, match=f"^enabled: must be True or False, not {number}"):
            mla_prefill.use_openmp_threads(number)


def test_an_interruption_is_no_refusal():
    class Interrupted:
        def __index__(self):
            raise KeyboardInterrupt

        __float__ = __bool__ = __iter__ = __index__

    for call in (
        lambda: mla_prefill.set_num_threads(Interrupted()),
        lambda: mla_prefill.use_openmp_threads(Interrupted()),
        lambda: mla_prefill.plan_context_chunks([Interrupted()], 16),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no class has a buffer of its own")
def test_an_interrupted_buffer_is_no_refusal():
    class Interrupted:
        def __buffer__(self, flags):
            raise KeyboardInterrupt

    for call in (
        lambda: mla_prefill.plan_context_chunks(Interrupted(), 16),
        lambda: mla_prefill.merge_attn_states(Interrupted(), *[None] * 4),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
