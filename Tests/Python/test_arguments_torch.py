# SPDX-License-Identifier: Apache-2.0
"""Tensors of torch's that are wrong, or unlike others, where an argument belongs."""

import pytest

torch = pytest.importorskip("torch")

from calls import CALLS, unnamed_refusals
from torch._subclasses.fake_tensor import FakeTensorMode


class Subclass(torch.Tensor):
    pass


class Wrapper(torch.Tensor):
    """Has its numbers in another tensor."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments, keywords=None):
        inner = (value.inner if isinstance(value, cls) else value for value in arguments)
        return function(*inner, **(keywords or {}))


def without_memory():
    tensor = torch.zeros(5, 2, 16)
    tensor.untyped_storage().resize_(0)
    return tensor


ZEROS = torch.zeros(5, 2, 16)
WRONG = {
    "meta": torch.zeros(5, 2, 16, device="meta"),
    "integers on meta": torch.zeros(3, dtype=torch.int32, device="meta"),
    "sparse": ZEROS.to_sparse(),
    "compressed": torch.eye(4).to_sparse_csr(),
    "sparse integers": torch.zeros(3, dtype=torch.int32).to_sparse(),
    "nested": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "conjugate": torch.zeros(5, 2, 16, dtype=torch.complex64).conj(),
    "negative": torch._neg_view(ZEROS),
    "conjugate's imaginary part": torch.zeros(5, 2, 16, dtype=torch.complex64).conj().imag,
    "with gradient": torch.zeros(5, 2, 16, requires_grad=True),
    "parameter": torch.nn.Parameter(torch.zeros(3)),
    "subclass": torch.zeros(3).as_subclass(Subclass),
    "wrapper": Wrapper(torch.zeros(5, 2, 16)),
    "wrapped integers": Wrapper(torch.zeros(3, dtype=torch.int32)),
    "fake": FakeTensorMode().from_tensor(torch.zeros(5, 2, 16)),
    "fake integers": FakeTensorMode().from_tensor(torch.zeros(3, dtype=torch.int32)),
    "functional": torch._to_functional_tensor(torch.zeros(5, 2, 16)),
    "functional integers": torch._to_functional_tensor(torch.zeros(3, dtype=torch.int32)),
    "zeros that are nowhere": torch._efficientzerotensor((5, 2, 16)),
    "quantized": torch.quantize_per_tensor(torch.zeros(5, 2, 16), 0.1, 0, torch.qint8),
    "of oneDNN": torch.zeros(5, 2, 16).to_mkldnn(),
    "without memory": without_memory(),
    "one element for all": torch.zeros(1, 1, 1).expand(5, 2, 16),
    "integers": torch.zeros(5, 2, dtype=torch.int64),
    "bytes": torch.zeros(3, dtype=torch.uint8),
    "booleans": torch.zeros(3, dtype=torch.bool),
    "another fp8": ZEROS.to(torch.float8_e5m2),
    "fp8": ZEROS.to(torch.float8_e4m3fn),
    "nothing": torch.zeros(0),
    "0-d": torch.tensor(-3),
    "0-d float": torch.tensor(1.5),
    "dtype": torch.int8,
    "device": torch.device("cpu"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_wrong_tensors_are_named(name):
    unnamed = unnamed_refusals(*CALLS[name], WRONG)
    assert not unnamed, "\n".join(unnamed)


def test_types_are_called_as_torch_calls_them():
    call, arguments = CALLS["run_prefill_new_tokens"]
    for kind in ("float8_e4m3fnuz", "float8_e5m2", "int8", "bool"):
        with pytest.raises(TypeError, match=rf"^q\.dtype = torch\.{kind}: must be float32,"):
            call(**{**arguments, "q": ZEROS.to(getattr(torch, kind))})


@pytest.mark.parametrize("name", ["run_prefill_new_tokens", "forward"])
def test_a_quantized_q_is_named(name):
    """With all tensors of its type, as vLLM hands them in, and an out made after it."""
    call, arguments = CALLS[name]
    quantized = {
        parameter: torch.from_numpy(value).to(torch.float8_e4m3fn)
        for parameter, value in arguments.items()
        if parameter in ("q", "k", "v", "kv_c_normed", "k_pe")
    }
    with pytest.raises(ValueError, match=r"^q\.dtype = MLA_DTYPE_FLOAT8_E4M3FN: must be "):
        call(**{**arguments, **quantized, "out": None})
