# SPDX-License-Identifier: Apache-2.0
"""Functions that are no backend's."""

from typing import Any

from mla_prefill import _core


def merge_attn_states(
    output: Any,
    prefix_output: Any,
    prefix_lse: Any,
    suffix_output: Any,
    suffix_lse: Any,
    output_lse: Any = None,
    prefill_tokens_with_context: int | None = None,
    output_scale: Any = None,
) -> None:
    """Merges the attention of the same tokens to two disjoint sets of keys, in place.

    An lse of +inf counts as -inf (no keys); two empty sides give 0 and -inf.

    Args:
        output: ``[tokens, heads, v_head_dim]`` of bf16, fp16, fp32, or fp8_e4m3 with
            an ``output_scale``; may be ``prefix_output`` or ``suffix_output`` itself. It
            and ``output_lse`` must be known to be writable: JAX's arrays are not.
        prefix_output, suffix_output: the same shape, one dtype for both.
        prefix_lse, suffix_lse: ``[heads, tokens]`` float32.
        output_lse: ``[heads, tokens]`` float32, or None.
        prefill_tokens_with_context: tokens from this one on have no prefix; None: all have.
        output_scale: the output is divided by it; with an fp8 output only and always.

    Raises:
        TypeError, ValueError: an argument breaks a rule; the text names it.
    """
    _core.merge_attn_states(
        output,
        prefix_output,
        prefix_lse,
        suffix_output,
        suffix_lse,
        output_lse,
        prefill_tokens_with_context,
        output_scale,
    )
