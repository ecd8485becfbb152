# SPDX-License-Identifier: Apache-2.0
"""attention() on numpy's arrays: shapes, layouts, what is refused. Numbers of all shapes are
the C ABI's tests."""

import ml_dtypes
import numpy as np
import pytest
from reference import LSE_TOLERANCE, TOLERANCE, TYPES

from mla_prefill import attention


def expected(q, k, v, scale=None, causal=None):
    """(out, lse) in float64 of ``[heads, rows, dim]``."""
    group = q.shape[0] // k.shape[0]
    q, k, v = (tensor.astype(np.float64) for tensor in (q, k, v))
    k, v = np.repeat(k, group, 0), np.repeat(v, group, 0)
    scores = np.einsum("hid,hjd->hij", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    rows, keys = scores.shape[1:]
    if causal is not None:
        offset = 0 if causal == "start" else keys - rows
        hidden = np.arange(keys)[None] > np.arange(rows)[:, None] + offset
        scores[:, hidden] = -np.inf
    with np.errstate(invalid="ignore", divide="ignore"):
        lse = np.logaddexp.reduce(scores, -1) if keys else np.full(scores.shape[:2], -np.inf)
        weights = np.nan_to_num(np.exp(scores - lse[..., None]))
    return np.einsum("hij,hjd->hid", weights, v), lse


def close(got, want, tolerance):
    scale = np.abs(want[np.isfinite(want)]).max(initial=1)
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=tolerance * scale)


def tensors(dtype, shape, keys, kv_heads, v_dim, seed=0):
    random = np.random.default_rng(seed)
    *batch, heads, rows, dim = shape
    shapes = (*batch, heads, rows, dim), (*batch, kv_heads, keys, dim), (*batch, kv_heads, keys, v_dim)
    return [random.standard_normal(s).astype(TYPES[dtype]) for s in shapes]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("causal", ["start", "end", None])
@pytest.mark.parametrize("rows", [1, 5, 70])
def test_batches(dtype, causal, rows):
    q, k, v = tensors(dtype, (2, 6, rows, 40), 66, 2, 24)
    out, lse = attention(q, k, v, causal=causal, return_lse=True)
    assert out.shape == (2, 6, rows, 24) and out.dtype == q.dtype
    assert lse.shape == (2, 6, rows) and lse.dtype == np.float32
    for b in range(2):
        want, want_lse = expected(q[b], k[b], v[b], causal=causal)
        close(out[b], want, TOLERANCE[dtype])
        close(lse[b], want_lse, LSE_TOLERANCE)
    # A token's heads lie side by side.
    assert out.transpose(0, 2, 1, 3).flags.c_contiguous


@pytest.mark.parametrize("causal", ["start", "end", None])
def test_layouts_have_the_same_bits(causal):
    q, k, v = tensors("bfloat16", (1, 4, 33, 32), 50, 2, 16)
    out, lse = attention(q, k, v, causal=causal, return_lse=True)
    rows = [np.ascontiguousarray(t[0].transpose(1, 0, 2)) for t in (q, k, v)]
    ragged, ragged_lse = attention(*rows, causal=causal, return_lse=True)
    assert ragged.shape == (33, 4, 16) and ragged_lse.shape == (4, 33)
    assert (ragged == out[0].transpose(1, 0, 2)).all() and (ragged_lse == lse[0]).all()
    views = [t.transpose(1, 0, 2)[None] for t in rows]
    assert not views[0].flags.c_contiguous
    assert (attention(*[t.swapaxes(1, 2) for t in [r[None] for r in rows]], causal=causal) == out).all()
    target = np.full((1, 4, 33, 20), np.nan, ml_dtypes.bfloat16)
    assert attention(*views, causal=causal, out=target[..., :16]) is not None
    assert (target[..., :16] == out).all() and np.isnan(target[..., 16:].astype(np.float32)).all()


def test_offsets():
    q, k, v = tensors("float32", (4, 40, 24), 90, 2, 8)
    q, k, v = (t.transpose(1, 0, 2) for t in (q, k, v))
    out, lse = attention(
        q, k, v, cu_seqlens_q=[0, 7, 7, 30], cu_seqlens_k=np.array([0, 50, 60, 83]), causal="end",
        return_lse=True,
    )  # fmt: skip
    for rows, keys in [((0, 7), (0, 50)), ((7, 30), (60, 83))]:
        parts = [t[slice(*b)].transpose(1, 0, 2) for t, b in [(q, rows), (k, keys), (v, keys)]]
        want, want_lse = expected(*parts, causal="end")
        close(out[slice(*rows)].transpose(1, 0, 2), want, TOLERANCE["float32"])
        close(lse[:, slice(*rows)], want_lse, LSE_TOLERANCE)
    # Rows of no request.
    assert (out[30:] == 0).all() and np.isneginf(lse[:, 30:]).all()
    assert (attention(q[:30], k[:30], v[:30], cu_seqlens_q=[0, 7, 7, 30], causal="start")
            == attention(q[:30], k[:30], v[:30], cu_seqlens_q=[0, 7, 7, 30],
                         cu_seqlens_k=[0, 7, 7, 30], causal="end")).all()  # fmt: skip


def test_shared_keys_and_padding():
    q, k, v = tensors("float32", (4, 12, 16), 64, 4, 16)
    q, k, v = (t.transpose(1, 0, 2) for t in (q, k, v))
    # Two sequences with a common beginning; the value is the key.
    out = attention(
        q, k, k, cu_seqlens_q=[0, 6, 12], k_begin=[0, 10], k_count=[40, 30], causal="end", scale=0.1
    )
    for rows, keys in [((0, 6), (0, 40)), ((6, 12), (10, 40))]:
        parts = [t[slice(*b)].transpose(1, 0, 2) for t, b in [(q, rows), (k, keys), (k, keys)]]
        want, _ = expected(*parts, causal="end", scale=0.1)
        close(out[slice(*rows)].transpose(1, 0, 2), want, TOLERANCE["float32"])
    q, k, v = tensors("float32", (2, 4, 9, 16), 9, 4, 16)
    k[1, :, :4] = v[1, :, :4] = np.nan
    padded = attention(q, k, v, k_begin=[0, 4], causal="end")
    alone = attention(q[1:, :, 4:], k[1:, :, 4:], v[1:, :, 4:], causal="end")
    assert (padded[1, :, 4:] == alone[0]).all() and (padded[1, :, :4] == 0).all()


def test_quantized():
    q, k, v = tensors("bfloat16", (1, 2, 20, 16), 20, 1, 16)
    out = attention(q, k, v, output_scale=0.02)
    assert out.dtype == ml_dtypes.float8_e4m3fn
    exact = attention(q, k, v, out=np.empty(out.shape, np.float32))
    assert (out == np.clip(exact * (1 / np.float32(0.02)), -448, 448).astype(out.dtype)).all()


def test_empty():
    for shape, keys in [((0, 4, 3, 8), 5), ((2, 4, 0, 8), 5), ((2, 4, 3, 8), 0)]:
        q, k, v = tensors("float32", shape, keys, 2, 8)
        out, lse = attention(q, k, v, return_lse=True)
        assert out.shape == shape and (out == 0).all() and np.isneginf(lse).all()
    q, k, v = tensors("float32", (5, 0, 8), 0, 5, 8)
    q, k, v = (t.transpose(1, 0, 2) for t in (q, k, v))
    assert attention(q, k, v, cu_seqlens_q=[0]).shape == (0, 5, 8)


REFUSED = [
    ({"q": np.zeros((2, 3), np.float32)}, "q.ndim = 2: must be 3 or 4"),
    ({"q": None}, "q: must be a tensor"),
    ({"k": np.zeros((1, 3, 5, 8), np.float32)}, r"k.shape\[1\] = 3: must divide the 4 heads of q"),
    ({"k": np.zeros((1, 2, 5, 9), np.float32)}, r"k.shape\[3\] = 9: must be 8"),
    ({"k": np.zeros((2, 5, 8), np.float32)}, "k.ndim = 3: must be 4"),
    ({"k": np.zeros((1, 2, 5, 8), np.float16)}, "k.dtype"),
    ({"v": np.zeros((1, 2, 6, 8), np.float32)}, r"v.shape\[2\] = 6: must be 5"),
    ({"v": np.zeros((2, 2, 5, 8), np.float32)}, r"v.shape\[0\]|out.shape"),
    ({"scale": "a"}, "scale"),
    ({"scale": float("nan")}, "scale = nan"),
    ({"causal": True}, "causal: must be one of start, end, not bool"),
    ({"causal": "middle"}, "causal = 'middle': must be one of start, end"),
    ({"cu_seqlens_q": [0, 3]}, "cu_seqlens_q"),
    ({"cu_seqlens_k": [0, 3]}, "cu_seqlens_k"),
    ({"cu_seqlens_k": [0, 3, 4]}, "cu_seqlens_k: has 3 entries, must have 2"),
    ({"k_begin": [6]}, r"k_begin\[0\] = 6: must be 0 to the 5 keys"),
    ({"k_begin": [-1]}, r"k_begin\[0\] = -1"),
    ({"k_begin": [0, 0]}, "k_begin: has 2 entries, must have 1"),
    ({"k_begin": 0}, "k_begin"),
    ({"k_count": [6]}, r"k_count\[0\] = 6: must be 0 to the 5 keys"),
    ({"k_begin": [3], "k_count": [3]}, r"k_count\[0\] = 3: must be 0 to the 2 keys"),
    ({"k_count": [0.5]}, "k_count"),
    ({"out": np.zeros((1, 4, 3, 9), np.float32)}, r"out.shape\[3\] = 9: must be 8"),
    ({"out": np.zeros((1, 4, 3, 8), np.int32)}, "out.dtype"),
    ({"return_lse": "yes"}, "return_lse"),
    ({"output_scale": 0.0}, "output_scale"),
]


@pytest.mark.parametrize("changed, text", REFUSED, ids=[text for _, text in REFUSED])
def test_refused(changed, text):
    q, k, v = tensors("float32", (1, 4, 3, 8), 5, 2, 8)
    arguments = {"q": q, "k": k, "v": v, "out": np.zeros((1, 4, 3, 8), np.float32)} | changed
    before = np.array(arguments["out"])
    with pytest.raises((TypeError, ValueError), match=text):
        attention(**arguments)
    assert (arguments["out"] == before).all()
