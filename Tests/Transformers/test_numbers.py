# SPDX-License-Identifier: Apache-2.0
"""The attention function over random batches, against float64."""

import random
from types import SimpleNamespace

import pytest
import torch

from mla_prefill.transformers.attention import attention_forward
from mla_prefill.transformers.latents import IMPLEMENTATION, LatentExpansion
from mla_prefill.transformers.masks import key_ranges_mask


class Latents(torch.nn.Module):
    """All that is known of a switched module."""

    is_causal = True

    def __init__(self, heads, rank, nope, rope, v):
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=IMPLEMENTATION)
        self.kv_lora_rank, self.v_head_dim = rank, v
        self.qk_nope_head_dim, self.qk_rope_head_dim = nope, rope
        self.kv_b_proj = torch.nn.Linear(rank, heads * (nope + v), bias=False)
        self.expand_kv = LatentExpansion(self, "sdpa")

    def expanded(self, latents, k_pe):
        """Keys and values ``[batch, heads, keys, ...]`` in float64."""
        weight = self.kv_b_proj.weight.double().unflatten(
            0, (-1, self.qk_nope_head_dim + self.v_head_dim)
        )
        both = torch.einsum("btr,hdr->bhtd", latents[:, 0].double(), weight)
        nope, values = both.split([self.qk_nope_head_dim, self.v_head_dim], 3)
        return torch.cat((nope, k_pe.double().expand(-1, len(weight), -1, -1)), 3), values


class Problem:
    """A step of a batch whose requests are padded, on a cache that may have room.

    What no query may see is NaN, and latents lie among other things.
    """

    def __init__(self, seed):
        random.seed(seed)
        torch.manual_seed(seed)
        self.heads = random.choice([1, 3, 4])
        self.rank, self.rope = random.choice([8, 33, 64]), random.choice([0, 7, 16])
        self.nope, self.v = random.choice([5, 16, 32]), random.choice([3, 16, 40])
        self.batch, self.queries = random.randint(1, 4), random.choice([1, 1, 2, 5, 37])
        self.first = random.choice([0, 0, 1, 30, 131])
        self.total = self.first + self.queries
        self.keys = self.total + random.choice([0, 0, 3, 60])
        self.side = random.choice(["none", "left", "right", "both", "between"])
        self.begins = [self._padding("left") for _ in range(self.batch)]
        self.ends = [max(self.total - self._padding("right"), begin) for begin in self.begins]

        chance = 0.6 if self.side == "between" else 1
        self.between = torch.rand(self.batch, self.total) < chance

    def _padding(self, side):
        return (
            random.choice([0, random.randint(0, self.total)]) if self.side in (side, "both") else 0
        )

    def padding_mask(self):
        key = torch.arange(self.total)
        seen = torch.stack(
            [
                (key >= begin) & (key < end)
                for begin, end in zip(self.begins, self.ends, strict=True)
            ]
        )
        return seen & self.between

    def mask(self):
        return key_ranges_mask(
            self.batch,
            self.queries,
            self.keys,
            q_offset=self.first,
            attention_mask=self.padding_mask(),
        )

    def states(self, heads, width):
        """``[batch, heads, keys, width]``, strided; NaN where no query looks."""
        rows = torch.full((self.batch, self.keys, heads, width + 5), torch.nan)[..., :width]
        for row, seen in zip(rows, self.padding_mask(), strict=True):
            row[: self.total][seen] = torch.randn(int(seen.sum()), heads, width)
        return rows.transpose(1, 2)

    def seen(self, request, query):
        """The keys of a query; none of one that is padding."""
        seen, own = self.padding_mask()[request], self.first + query
        return (seen[: own + 1].nonzero()[:, 0]) if seen[own] else torch.empty(0, dtype=torch.long)

    def compare(self, out, query, keys, values, scale, tolerance):
        assert out.shape == (self.batch, self.queries, self.heads, self.v)
        for request in range(self.batch):
            for row in range(self.queries):
                seen = self.seen(request, row)
                scores = keys[request, :, seen] @ query[request, :, row].double()[..., None] * scale
                expected = (scores.softmax(1) * values[request, :, seen]).sum(1)
                if len(seen) or self.zero_in_padding:
                    assert (out[request, row].double() - expected).abs().max() < tolerance


@pytest.mark.parametrize("seed", range(80))
def test_latents(seed):
    problem = Problem(seed)
    problem.zero_in_padding = problem.queries > 1
    module = Latents(problem.heads, problem.rank, problem.nope, problem.rope, problem.v)
    query = torch.randn(problem.batch, problem.heads, problem.queries, problem.nope + problem.rope)
    latents, k_pe = problem.states(1, problem.rank), problem.states(1, problem.rope)
    out, _ = attention_forward(module, query, latents, k_pe, problem.mask(), scaling=0.3)
    problem.compare(out, query, *module.expanded(latents, k_pe), 0.3, 2e-5)
    if problem.queries == 1:
        # A mask of the caller's that hides a lone query's own key hides no other.
        seen = torch.nn.functional.pad(problem.padding_mask(), (0, problem.keys - problem.total))
        own, _ = attention_forward(module, query, latents, k_pe, seen[:, None, None], scaling=0.3)
        keys, values = module.expanded(latents, k_pe)
        for request, seen in enumerate(problem.padding_mask()):
            seen = seen.nonzero()[:, 0]
            scores = keys[request, :, seen] @ query[request, :, 0].double()[..., None] * 0.3
            expected = (scores.softmax(1) * values[request, :, seen]).sum(1)
            assert (own[request, 0].double() - expected).abs().max() < 2e-5


@pytest.mark.parametrize("seed", range(80))
def test_keys_and_values(seed):
    problem = Problem(seed)
    problem.zero_in_padding = False
    module, width = torch.nn.Module(), problem.nope + problem.rope
    groups = random.choice([1, problem.heads])
    query = torch.randn(problem.batch, problem.queries, problem.heads, width).transpose(1, 2)
    key, value = problem.states(groups, width), problem.states(groups, problem.v)
    out, _ = attention_forward(module, query, key, value, problem.mask(), scaling=0.3)
    wide = [each.double().repeat_interleave(problem.heads // groups, 1) for each in (key, value)]
    problem.compare(out, query, *wide, 0.3, 2e-5)


def test_every_query_sees_all_keys_of_what_is_not_causal():
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 9, 8), torch.randn(2, 4, 9, 6)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    seen = torch.ones(2, 1, 5, 9, dtype=torch.bool)
    for mask, is_causal in ((None, False), (seen, True), (torch.zeros(2, 1, 5, 9), None)):
        out, _ = attention_forward(torch.nn.Module(), query, key, value, mask, is_causal=is_causal)
        assert (out.transpose(1, 2) - expected).abs().max() < 1e-5


def test_nothing():
    module = Latents(2, 8, 4, 2, 3)
    for batch, queries in ((0, 3), (2, 0)):
        query = torch.randn(batch, 2, queries, 6)
        latents, k_pe = torch.randn(batch, 1, queries, 8), torch.randn(batch, 1, queries, 2)
        out, _ = attention_forward(module, query, latents, k_pe, None)
        assert out.shape == (batch, queries, 2, 3)
        value = torch.randn(batch, 2, queries, 3)
        out, _ = attention_forward(torch.nn.Module(), query, query, value, None)
        assert out.shape == (batch, queries, 2, 3)
