# SPDX-License-Identifier: Apache-2.0
"""merge_attn_states on numpy's arrays."""

import ml_dtypes
import numpy as np
import pytest
from test_backends import quantized

from mla_prefill import merge_attn_states


def test_merge_names_its_arguments():
    out = np.zeros((3, 2, 4), np.float32)
    lse = np.zeros((2, 3), np.float32)
    for position, name in enumerate(
        ["output", "prefix_output", "prefix_lse", "suffix_output", "suffix_lse", "output_lse"]
    ):
        tensors = [out, out + 1, lse, out + 2, lse + 1, lse + 2]
        tensors[position] = tensors[position][:, :1]
        with pytest.raises(ValueError, match=name):
            merge_attn_states(*tensors)
    merge_attn_states(out, out + 1, lse, out + 3, lse, None, 2)
    assert (out[:2] == 2).all() and (out[2] == 3).all()


def test_quantized_merge():
    random = np.random.default_rng(3)

    def numbers(*shape):
        return random.standard_normal(shape).astype(np.float32)

    sides = numbers(90, 3, 20), numbers(3, 90), numbers(90, 3, 20), numbers(3, 90)
    exact = np.zeros((90, 3, 20), np.float32)
    merge_attn_states(exact, *sides)
    rows = np.zeros((90, 3, 25), ml_dtypes.float8_e4m3fn)
    for scale in (0.004, 0.7):
        merge_attn_states(rows[..., :20], *sides, output_scale=scale)
        codes = rows.view(np.uint8)
        assert (codes[..., :20] == quantized(exact, scale).view(np.uint8)).all()
        assert (codes[..., 20:] == 0).all()


def test_bfloat16_of_ml_dtypes_merges():
    half = np.ones((3, 2, 4), ml_dtypes.bfloat16)
    empty = np.full((2, 3), -np.inf, np.float32)
    out, lse = np.empty_like(half), np.zeros((2, 3), np.float32)
    merge_attn_states(out, half, empty, half, np.full((2, 3), np.inf, np.float32), lse)
    assert (out == 0).all() and np.isneginf(lse).all()
