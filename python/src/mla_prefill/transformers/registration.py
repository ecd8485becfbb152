# SPDX-License-Identifier: Apache-2.0
"""What is put into transformers' registries."""

from functools import cache

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from mla_prefill import host
from mla_prefill.transformers.attention import attention_forward
from mla_prefill.transformers.latents import IMPLEMENTATION
from mla_prefill.transformers.masks import key_ranges_mask


@cache
def register() -> None:
    """Adds ``attn_implementation="mla_prefill"``; may be called any number of times.

    It serves models as they are: causal attention of grouped heads of any dimensions,
    padding at either end. What it does not serve it refuses by a ValueError that names the
    argument. Runs of this process are on torch's threads from then on, as many as torch
    has: between two of its operators those are awake.
    """
    host.set_num_threads(torch.get_num_threads())
    host.use_openmp_threads()
    AttentionInterface.register(IMPLEMENTATION, attention_forward)
    AttentionMaskInterface.register(IMPLEMENTATION, key_ranges_mask)
