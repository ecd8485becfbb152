# SPDX-License-Identifier: Apache-2.0
"""What is put into transformers' registries."""

from functools import cache

from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from mla_prefill.transformers.attention import attention_forward
from mla_prefill.transformers.latents import IMPLEMENTATION
from mla_prefill.transformers.masks import key_ranges_mask


@cache
def register() -> None:
    """Adds what switched modules ask for by `IMPLEMENTATION`; may be called again."""
    AttentionInterface.register(IMPLEMENTATION, attention_forward)
    AttentionMaskInterface.register(IMPLEMENTATION, key_ranges_mask)
