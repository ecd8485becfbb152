# SPDX-License-Identifier: Apache-2.0
"""What vLLM's attention backend AMX_MLA runs: none of it is in its builds for CPUs
without AVX512_BF16."""

from collections.abc import Iterable

import torch
from vllm.platforms import current_platform

_OPERATORS = ("convert_weight_packed", "bmm_cpu", "extend_attention_cpu", "decode_attention_cpu")


def missing(operators: Iterable[str] = _OPERATORS) -> str:
    """The names of those of vLLM's operators that are not there, "" where all are."""
    current_platform.import_kernels()
    return ", ".join(name for name in operators if not hasattr(torch.ops._C, name))
