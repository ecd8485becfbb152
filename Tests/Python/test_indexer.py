# SPDX-License-Identifier: Apache-2.0
"""The lightning indexer: keys into its cache, and which of them tokens get."""

import ml_dtypes
import numpy as np
import pytest
from reference import TYPES

from mla_prefill import indexer

FP8 = ml_dtypes.float8_e4m3fn
HEADS, DIM, BLOCK = 4, 32, 8


class Problem:
    """Two requests, the second with context, whose keys lie in blocks in any order."""

    def __init__(self, dtype="float32", format="plain"):
        self.random = np.random.default_rng(7)
        self.format, self.context_lens, self.query_start_loc = format, [0, 50], [0, 5, 9]
        self.keys = [self.draw(5, DIM).astype(TYPES[dtype]), self.draw(54, DIM).astype(TYPES[dtype])]
        self.q = self.draw(9, HEADS, DIM).astype(TYPES[dtype])
        self.weights = self.draw(9, HEADS).astype(np.float32)
        self.block_table = [[6], [3, 0, 7, 1, 8, 2, 4]]
        width = DIM if format == "plain" else DIM + 4
        self.cache = np.zeros((9, BLOCK, width), TYPES[dtype] if format == "plain" else np.uint8)
        for keys, blocks in zip(self.keys, self.block_table):
            slots = [blocks[i // BLOCK] * BLOCK + i % BLOCK for i in range(len(keys))]
            indexer.store(keys, self.cache, slots, format)

    def draw(self, *shape):
        return self.random.standard_normal(shape)

    def cached(self, request):
        """Its keys as they lie in the cache, dequantized."""
        blocks = self.cache[self.block_table[request]]
        count = len(self.keys[request])
        if self.format == "plain":
            return blocks.reshape(-1, DIM)[:count].astype(np.float64)
        blocks = blocks.reshape(len(blocks), -1)
        codes = np.ascontiguousarray(blocks[:, : BLOCK * DIM]).view(FP8).astype(np.float64)
        scales = np.ascontiguousarray(blocks[:, BLOCK * DIM :]).view(np.float32)
        return (codes.reshape(-1, DIM) * scales.reshape(-1, 1).astype(np.float64))[:count]

    def scores(self, row):
        request = int(row >= 5)
        visible = row + 1 if request == 0 else 50 + row - 5 + 1
        products = self.q[row].astype(np.float64) @ self.cached(request)[:visible].T
        return self.weights[row].astype(np.float64) @ np.maximum(products, 0)

    def expected(self, row, topk):
        best = np.sort(np.argsort(-self.scores(row), kind="stable")[:topk])
        return np.pad(best, (0, topk - len(best)), constant_values=-1)

    def select(self, **keywords):
        return indexer.select(
            self.q,
            self.weights,
            self.cache,
            self.block_table,
            self.query_start_loc,
            self.context_lens,
            format=self.format,
            **keywords,
        )


@pytest.mark.parametrize("format", indexer.INDEX_FORMATS)
@pytest.mark.parametrize("dtype", TYPES)
def test_selects_the_best(dtype, format):
    problem = Problem(dtype, format)
    scores = np.zeros((9, 7), np.float32)
    got = problem.select(topk=7, scores=scores)
    assert got.dtype == np.int32 and got.shape == (9, 7)
    for row in range(9):
        np.testing.assert_array_equal(got[row], problem.expected(row, 7))
        right = problem.scores(row)[got[row][got[row] >= 0]]
        np.testing.assert_allclose(scores[row][: len(right)], right, rtol=1e-4, atol=1e-4)
        assert (scores[row][len(right) :] == -np.inf).all()


def test_writes_into_what_it_is_given():
    problem = Problem()
    wide = np.full((9, 12), 99, np.int32)
    out = wide[:, 2:9]
    assert problem.select(topk_indices=out, first_row=3, num_rows=4) is out
    for row in range(9):
        expected = problem.expected(row, 7) if 3 <= row < 7 else np.full(7, 99)
        np.testing.assert_array_equal(out[row], expected)
    assert (wide[:, :2] == 99).all() and (wide[:, 9:] == 99).all()


def test_visible_keys_and_tables():
    problem = Problem()
    visible = [5, 0, 3, 1, 5, 20, 54, 1, 0]
    ragged = problem.block_table
    table = np.full((2, 7), 2**31 - 1, np.int64)
    for i, blocks in enumerate(ragged):
        table[i, : len(blocks)] = blocks
    for given in (ragged, table, table.astype(np.int32)):
        problem.block_table = given
        got = problem.select(topk=60, visible_keys=np.array(visible))
        # Of a block that nobody sees the number may be any.
        if given is table:
            table[0] = 1 << 40
            none_of_the_first = problem.select(topk=60, visible_keys=[0] * 5 + visible[5:])
            assert (none_of_the_first[:5] == -1).all()
        problem.block_table = ragged
        for row, count in enumerate(visible):
            np.testing.assert_array_equal(got[row][: count], np.arange(count))
            assert (got[row][count:] == -1).all()


def test_quantized_queries():
    """A query of fp8 is what the call makes of it."""
    problem = Problem("float32", "fp8_block")
    expected = np.zeros((9, 7), np.float32)
    problem.select(topk=7, scores=expected, quantize_q=True, hadamard=True)
    rows = problem.q.reshape(-1, DIM)
    stored = np.zeros((len(rows), 1, DIM + 4), np.uint8)
    indexer.store(rows, stored, range(len(rows)), "fp8_block", hadamard=True)
    problem.q = stored[:, 0, :DIM].reshape(9, HEADS, DIM)
    problem.weights = problem.weights * np.ascontiguousarray(stored[:, 0, DIM:]).view(np.float32).reshape(9, HEADS)
    got = np.zeros((9, 7), np.float32)
    problem.select(topk=7, scores=got)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("scale_format", indexer.SCALE_FORMATS)
def test_scales(scale_format):
    k = np.array([[448.0, 1.0, -3.0, 0.0], [449.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    cache = np.zeros((1, 3, 8), np.uint8)
    indexer.store(k, cache, [0, 1, 2], "fp8_block", scale_format)
    scales = cache.reshape(-1)[12:].view(np.float32)
    needed = np.maximum(np.abs(k).max(1), np.float32(1e-4)) / np.float32(448)
    if scale_format == "power_of_two":
        needed = np.exp2(np.ceil(np.log2(needed)))
    np.testing.assert_array_equal(scales, needed)
    codes = (k / needed[:, None]).astype(FP8)
    np.testing.assert_array_equal(cache.reshape(-1)[:12].view(FP8).reshape(3, 4), codes)


def uneven(shape, strides):
    """Numbers that do not lie where an array of them has them."""
    return np.ndarray(shape, np.int32, np.zeros(400, np.uint8), 0, strides)


@pytest.mark.parametrize("format", indexer.INDEX_FORMATS)
def test_a_cache_of_no_blocks(format):
    cache = np.zeros((0, 8, 12), np.float32 if format == "plain" else np.uint8)
    k = np.zeros((3, 12 if format == "plain" else 8), np.float32)
    indexer.store(k, cache, [-1, -1, -1], format)
    got = indexer.select(
        k[:0, None], np.zeros((0, 1), np.float32), cache, np.zeros((0, 0), np.int32), [0],
        topk=2, format=format,
    )  # fmt: skip
    assert got.shape == (0, 2)


@pytest.mark.parametrize(
    "keywords, error, text",
    [
        (dict(), TypeError, "topk: "),
        (dict(topk=0), ValueError, "topk = 0: must be"),
        (dict(topk="7"), TypeError, "topk: "),
        (dict(topk=2**40), ValueError, "topk = 1099511627776: must be 1 to 1048576"),
        (dict(topk=2, topk_indices=np.zeros(9, np.int32)), ValueError, "topk_indices: must have two"),
        (dict(topk=2, topk_indices=[[0]]), (TypeError, ValueError), ""),
        (dict(topk_indices=uneven((9, 4), (18, 4))), ValueError, r"topk_indices.strides\[0\] = 18 bytes"),
        (dict(topk_indices=uneven((9, 4), (40, 6))), ValueError, r"topk_indices.strides\[1\] = 6 bytes"),
        (dict(topk_indices=np.zeros((9, 4))), TypeError, "topk_indices: must be of int32"),
        (dict(topk_indices=np.zeros((9, 4), np.int64)), TypeError, "topk_indices: must be of int32"),
        (dict(topk_indices=np.zeros((8, 4), np.int32)), ValueError, r"topk_indices.shape\[0\] = 8: must be 9"),
        (dict(topk_indices=np.zeros(9, np.int32)), ValueError, "topk_indices: must have two dimensions"),
        (dict(topk_indices=np.zeros((9, 8), np.int32)[:, ::2]), ValueError, "topk_indices: must have two"),
        (dict(topk=4, topk_indices=np.zeros((9, 5), np.int32)), ValueError, "topk = 4: must be the width"),
        (dict(topk=4, scores=np.zeros((9, 5), np.float32)), ValueError, r"scores.shape\[1\] = 5: must be 4"),
        (dict(topk=4, visible_keys=[1] * 8), ValueError, "visible_keys: has 8 entries, must have 9"),
        (dict(topk=4, visible_keys=[6] * 9), ValueError, r"visible_keys\[0\] = 6: must be 0 to the 5 keys"),
        (dict(topk=4, first_row=10), ValueError, "first_row = 10: must be 0 to the 9 rows of q"),
        (dict(topk=4, hadamard=2), TypeError, "hadamard"),
        (dict(topk=4, scale_format="fp32"), ValueError, "scale_format = 'fp32': must be one of"),
    ],
)
def test_refusals(keywords, error, text):
    with pytest.raises(error, match="^" + text):
        Problem().select(**keywords)


def test_read_only_indices_are_refused():
    out = np.zeros((9, 4), np.int32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="^topk_indices: is written"):
        Problem().select(topk_indices=out)


def test_nothing_is_stored_by_a_refused_call():
    cache = np.full((2, 4, 8), 3, np.float32)
    with pytest.raises(ValueError, match=r"^slot_mapping\[1\] = 8: must be -1 or one of the 8 slots"):
        indexer.store(np.zeros((2, 8), np.float32), cache, [0, 8])
    assert (cache == 3).all()
