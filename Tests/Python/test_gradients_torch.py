# SPDX-License-Identifier: Apache-2.0
"""Tensors that require gradients: taken where torch records none, else refused."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.autograd.forward_ad as forward_ad
from calls import CALLS, LAYER

from mla_prefill import MLAPrefillLayer

TAKEN = [
    (name, parameter)
    for name, (_, arguments) in CALLS.items()
    for parameter, value in arguments.items()
    if isinstance(value, np.ndarray)
]


def tensors_for(name):
    """The call's arguments with tensors of torch's, outputs among them, to itself."""
    return {
        parameter: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for parameter, value in CALLS[name][1].items()
    }


def results(name, arguments):
    """All that a call gives: what it returns, and what its tensors hold then."""
    result = CALLS[name][0](**arguments)
    if isinstance(result, MLAPrefillLayer):
        result = result.forward(**LAYER.tensors)
    returned = result if isinstance(result, tuple) else (result,)
    held = (value for value in arguments.values() if isinstance(value, torch.Tensor))
    return [np.asarray(value.detach()) for value in (*returned, *held) if torch.is_tensor(value)]


def compare(got, expected):
    """Bit by bit; caches have NaN where nobody has written."""
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name, parameter", TAKEN)
def test_taken_where_no_gradients_are_recorded(name, parameter, mode):
    expected = results(name, tensors_for(name))
    arguments = tensors_for(name)
    arguments[parameter] = torch.nn.Parameter(arguments[parameter])
    with mode():
        got = results(name, arguments)
    assert got
    compare(got, expected)


@pytest.mark.parametrize("name, parameter", TAKEN)
def test_refused_where_gradients_are_recorded(name, parameter):
    arguments = tensors_for(name)
    arguments[parameter].requires_grad_()
    refusal = rf"^{parameter}\.requires_grad = True: .* detach\(\) it, or .* torch\.no_grad\(\)"
    with torch.no_grad(), torch.enable_grad(), pytest.raises(ValueError, match=refusal):
        CALLS[name][0](**arguments)


@pytest.mark.parametrize("name, parameter", TAKEN)
def test_tangents_are_refused(name, parameter):
    """Of forward-mode AD; tensors without one are taken there."""
    expected, arguments = results(name, tensors_for(name)), tensors_for(name)
    plain = arguments[parameter]
    with forward_ad.dual_level():
        compare(results(name, tensors_for(name)), expected)
        arguments[parameter] = forward_ad.make_dual(plain, torch.ones_like(plain))
        with pytest.raises(ValueError, match=rf"^{parameter}: has a tangent"):
            CALLS[name][0](**arguments)
