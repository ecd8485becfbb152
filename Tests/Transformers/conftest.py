# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from tiny import TEXT_MODELS, VOCABULARY

from mla_prefill.transformers.classes import mla_classes

#: Those of them that make text by themselves.
SERVED = [
    each.model for each in mla_classes() if each.refusal is None and each.model not in TEXT_MODELS
]


@pytest.fixture(autouse=True)
def _without_gradients():
    torch.manual_seed(1)
    with torch.no_grad():
        yield


@pytest.fixture
def prompts():
    """A function: random tokens ``[batch, tokens]``."""
    return lambda *shape: torch.randint(2, VOCABULARY, shape)
