# SPDX-License-Identifier: Apache-2.0
"""What backends written in Python raise, and what they return wrongly."""

import numpy as np
import pytest
from mean_backend import Mean, one_head

from mla_prefill import (
    MLAPrefillConfig,
    _core,
    backends,
    get_mla_prefill_backend,
    register_mla_prefill_backend,
)


class Refusal(Exception):
    pass


@pytest.mark.parametrize(
    "error, status",
    [
        (ValueError("no"), 1),
        (TypeError("no"), 1),
        (NotImplementedError("no"), 2),
        (ImportError("no"), 3),
        (MemoryError("no"), 5),
        (RuntimeError("no"), 6),
        (Refusal("ä"), 6),
        (KeyboardInterrupt("no"), 6),
    ],
)
def test_exceptions(cpp, error, status):
    @register_mla_prefill_backend("RAISING")
    class Raising(Mean):
        def run_prefill_new_tokens(self, *arguments, **keywords):
            raise error

    assert cpp.run_backend(b"RAISING", 1) == status
    assert cpp.last_message().decode() == f"{type(error).__name__}: {error}"
    assert cpp.run_backend(b"RAISING", 2) == status
    # By way of the library, from Python: the exception itself.
    backend = one_head("RAISING")
    backend.prepare_metadata([0, 1], [])
    row = np.zeros((1, 1, 2), np.float32)
    with pytest.raises(type(error)) as caught:
        backend.run_prefill_new_tokens(row, row, row, row.copy(), None, None, False)
    assert caught.value is error


def test_texts_that_c_would_cut(cpp):
    @register_mla_prefill_backend("TELLING")
    class Telling(Mean):
        @classmethod
        def validate_configuration(cls, device_capability, selector_config):
            return ["reason\0with more"]

        def run_prefill_new_tokens(self, *arguments, **keywords):
            raise ValueError("text\0with more")

    assert cpp.run_backend(b"TELLING", 1) == 1
    assert cpp.last_message().decode() == "ValueError: text\ufffdwith more"
    rows = {row.name: row for row in backends(MLAPrefillConfig())}
    assert rows["TELLING"].reasons == ("reason\ufffdwith more",)


@pytest.mark.parametrize(
    "result",
    [
        None,
        3,
        np.zeros((5, 1, 1)),
        (np.zeros((4, 1, 2)), np.zeros((1, 5))),
        # Which NumPy would spread over all rows.
        (np.zeros((1, 1, 2)), np.zeros((1, 5))),
        (np.zeros((5, 1, 2)), None),
        (np.ndarray, np.ndarray),
        (np.full((5, 1, 2), object()), np.zeros((1, 5))),
        (np.zeros((5, 1, 2)), np.full((1, 5), object())),
    ],
)
def test_wrong_results_are_errors(cpp, result):
    @register_mla_prefill_backend("WRONG")
    class Wrong(Mean):
        def run_prefill_new_tokens(self, *arguments, **keywords):
            return result

    assert cpp.run_backend(b"WRONG", 1) == 1
    assert any(name in cpp.last_message() for name in (b"out: ", b"lse: ", b"result: "))


@pytest.mark.parametrize("library", ["jax", "", "torch.nn", 3, b"numpy", []])
def test_wrong_tensor_libraries_are_named(library):
    register_mla_prefill_backend("WRONG")(type("Wrong", (Mean,), {"tensor_library": library}))
    with pytest.raises((TypeError, ValueError), match="^tensor_library.*must be 'torch', 'numpy'"):
        one_head("WRONG")


@pytest.mark.parametrize("reasons", [None, 3, "text"])
def test_wrong_reasons_are_named(reasons):
    register_mla_prefill_backend("WRONG")(
        type("Wrong", (Mean,), {"validate_configuration": lambda *arguments: reasons})
    )
    text = f"validate_configuration: the backend returned {type(reasons).__name__}, must be a list"
    rows = {row.name: row for row in backends()}
    assert not rows["WRONG"].is_valid and text in rows["WRONG"].reasons[0]
    with pytest.raises(TypeError, match=f"^{text}"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="WRONG"))


class Stop(BaseException):
    """No Exception, as KeyboardInterrupt and SystemExit are none."""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), Stop()])
def test_what_is_no_exception_is_raised(error):
    def stop(*arguments):
        raise error

    register_mla_prefill_backend("LISTED")(type("Listed", (Mean,), {"is_available": stop}))
    register_mla_prefill_backend("ASKED")(type("Asked", (Mean,), {"supports_quant_output": stop}))
    # What fails after it takes nothing from it.
    register_mla_prefill_backend("LATER")(
        type("Later", (Mean,), {"is_available": classmethod(lambda cls: 1 / 0)})
    )
    float8 = _core.dtype_of_name("float8_e4m3fn")
    for call in (lambda: backends(), lambda: one_head("ASKED").supports_quant_output(float8)):
        with pytest.raises(type(error)) as caught:
            call()
        assert caught.value is error


def test_exceptions_of_questions_are_answers():
    def fail(*arguments):
        raise RuntimeError("said by the class")

    register_mla_prefill_backend("LISTED")(type("Listed", (Mean,), {"is_available": fail}))
    register_mla_prefill_backend("ASKED")(type("Asked", (Mean,), {"supports_quant_output": fail}))
    rows = {row.name: row for row in backends()}
    assert rows["LISTED"].reasons == ("RuntimeError: said by the class",)
    assert not one_head("ASKED").supports_quant_output(_core.dtype_of_name("float8_e4m3fn"))
