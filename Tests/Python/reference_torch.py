# SPDX-License-Identifier: Apache-2.0
"""Attention in float64 by torch's operators, whose gradients are torch's; and problems."""

from dataclasses import dataclass, field

import torch

OPTIONAL = ("cu_seqlens_q", "cu_seqlens_k", "k_begin", "k_count")


@dataclass
class AttentionProblem:
    """Tensors of ``mla_prefill.attention``: of 4 dimensions with a batch, else of 3, where
    `rows` and `keys` are the lengths of requests."""

    rows: list[int]
    keys: list[int]
    batch: int | None = None
    heads: int = 4
    kv_heads: int = 2
    dim: int = 24
    v_dim: int = 16
    causal: str | None = None
    scale: float | None = None
    k_begin: list[int] | None = None
    k_count: list[int] | None = None
    #: All requests look at the same keys.
    shared: bool = False
    #: Rows that are no request's.
    beyond: int = 0
    dtype: torch.dtype = torch.float32
    seed: int = 0
    tensors: list = field(init=False)

    def __post_init__(self):
        random = torch.Generator().manual_seed(self.seed)
        num_keys = self.keys[0] if self.shared else sum(self.keys) + self.beyond
        shapes = (
            (sum(self.rows) + self.beyond, self.heads, self.dim),
            (num_keys, self.kv_heads, self.dim),
            (num_keys, self.kv_heads, self.v_dim),
        )
        if self.batch:
            shapes = [(self.batch, heads, rows, dim) for rows, heads, dim in shapes]
        self.tensors = [torch.randn(shape, generator=random).to(self.dtype) for shape in shapes]

    @property
    def options(self):
        """The call's other arguments."""
        named = {"scale": self.scale, "causal": self.causal}
        if not self.batch:
            named["cu_seqlens_q"] = offsets(self.rows)
            left_out = self.shared or (self.rows == self.keys and not self.beyond)
            named["cu_seqlens_k"] = None if left_out else offsets(self.keys)
        for name in ("k_begin", "k_count"):
            values = getattr(self, name)
            named[name] = None if values is None else torch.tensor(values, dtype=torch.int32)
        return named

    def expected(self, q, k, v):
        """(out, lse) of float64 tensors, of which gradients can be had."""
        lse_shape = (self.batch, self.heads, q.shape[2]) if self.batch else (self.heads, len(q))
        out = torch.zeros(*q.shape[:-1], self.v_dim, dtype=torch.float64)
        lse = torch.full(lse_shape, -torch.inf, dtype=torch.float64)
        for number in range(self.batch or len(self.rows)):
            if self.batch:
                part, sums = self._one(q[number], k[number], v[number], number)
                out = out.index_put((torch.tensor(number),), part)
                lse = lse.index_put((torch.tensor(number),), sums)
                continue
            rows = slice(*offsets(self.rows)[number : number + 2].tolist())
            columns = slice(*offsets(self.keys)[number : number + 2].tolist())
            columns = slice(None) if self.shared else columns
            heads_first = (t.transpose(0, 1) for t in (q[rows], k[columns], v[columns]))
            part, sums = self._one(*heads_first, number)
            place = torch.arange(rows.start, rows.stop)
            out = out.index_put((place,), part.transpose(0, 1))
            lse = lse.index_put((torch.arange(self.heads)[:, None], place[None]), sums)
        return out, lse

    def _one(self, q, k, v, number):
        begin = self.k_begin[number] if self.k_begin else 0
        end = begin + self.k_count[number] if self.k_count else k.shape[1]
        k, v = (t[:, begin:end].repeat_interleave(self.heads // self.kv_heads, 0) for t in (k, v))
        scale = self.dim**-0.5 if self.scale is None else self.scale
        rows, keys = q.shape[1], k.shape[1]
        scores = q @ k.transpose(1, 2) * scale
        offset = {None: keys, "start": 0, "end": keys - rows}[self.causal]
        seen = torch.arange(keys) <= torch.arange(rows)[:, None] + offset
        # A row without keys has neither a result nor gradients.
        empty = ~seen.any(-1, keepdim=True)
        scores = scores.masked_fill(~(seen | empty), -torch.inf)
        if keys == 0:
            return q.new_zeros(*q.shape[:-1], self.v_dim), q.new_full(q.shape[:-1], -torch.inf)
        weights = scores.softmax(-1).masked_fill(empty, 0)
        return weights @ v, scores.logsumexp(-1).masked_fill(empty[..., 0], -torch.inf)


def offsets(lengths):
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
