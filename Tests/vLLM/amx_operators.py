# SPDX-License-Identifier: Apache-2.0
"""What vLLM's attention backend AMX_MLA runs: none of it is in its builds for CPUs
without AVX512_BF16."""

import torch
from vllm.platforms import current_platform

_OPERATORS = ("convert_weight_packed", "bmm_cpu", "extend_attention_cpu", "decode_attention_cpu")


def missing() -> str:
    """Their names, "" where all are there."""
    current_platform.import_kernels()
    return ", ".join(name for name in _OPERATORS if not hasattr(torch.ops._C, name))
