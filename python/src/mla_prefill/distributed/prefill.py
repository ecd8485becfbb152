# SPDX-License-Identifier: Apache-2.0
"""The MLA prefill layer over the ranks of a group."""

from typing import Any

import torch
import torch.distributed as dist

from mla_prefill.distributed.agreement import agree
from mla_prefill.distributed.parts import PromptParts
from mla_prefill.distributed.ring import Ring
from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.ops import merge_attn_states


class ContextParallelPrefill:
    """``MLAPrefillLayer.forward`` of one prompt whose tokens are spread over ranks.

    A rank has the tokens that ``shard`` says and gets their output. Latents travel in a ring
    while it attends to those that it has; each part of the prompt is attended to in one call,
    and results merge in fp32, by their lse, in the prompt's order. A rank's row has therefore
    the same bits for any number of ranks, one of them included, where the layer's algorithm is
    "up_projected" and all ranks have the same kernels; else, and beside the layer's own
    ``forward`` of the whole prompt, it is equal within rounding.
    """

    def __init__(
        self, layer: MLAPrefillLayer, group: Any = None, part_tokens: int | None = None
    ) -> None:
        """
        Args:
            layer: the same weights on all ranks, without a ``cache_dtype`` of another type
                than its ``dtype``. It is held.
            group: a process group of torch.distributed, for the CPU (gloo); None: the default
                one. Its timeout is how long a rank waits for another that does not answer.
                While a forward call is under way on it nobody else may use it.
            part_tokens: as in `PromptParts`.

        Raises:
            ValueError: ``part_tokens`` breaks a rule, or the group is not initialized or has
                not this process.
        """
        PromptParts(0, 1, part_tokens)
        self._layer, self._part_tokens = layer, part_tokens
        self._group = dist.group.WORLD if group is None else group
        self.rank, self.ranks = dist.get_rank(self._group), dist.get_world_size(self._group)
        if self.rank < 0:
            raise ValueError("group: this process is not one of its ranks")

    def parts(self, tokens: int) -> PromptParts:
        """How a prompt of so many tokens is spread."""
        return PromptParts(tokens, self.ranks, self._part_tokens)

    def forward(
        self,
        q: Any,
        kv_c_normed: Any,
        k_pe: Any,
        tokens: int,
        out: Any = None,
        lse: Any = None,
        latents: Any = None,
    ) -> Any:
        """Causal attention of this rank's tokens to the whole prompt. Called by all ranks.

        Args:
            q: ``[rows, num_heads, qk_nope_head_dim + qk_rope_head_dim]``, rope applied, of the
                tokens ``shard(tokens, rank, ranks)``. A torch tensor on the CPU, as all others.
            kv_c_normed: ``[rows, kv_lora_rank]``, the type of ``q``.
            k_pe: ``[rows, qk_rope_head_dim]``, likewise; None where that is 0.
            tokens: of the whole prompt.
            out: ``[rows, num_heads, v_head_dim]`` to write into; None: a new one of q's type.
            lse: ``[num_heads, rows]`` float32 to write the log-sum-exp into; None: not wanted.
            latents: ``[tokens, kv_lora_rank + qk_rope_head_dim]`` of q's type to be filled with
                the whole prompt's, in its order, for the rank that will decode; None: not wanted.

        Returns:
            ``out``.

        Raises:
            TypeError, ValueError: an argument breaks a rule, of this rank, of another or of
                all together; then no rank has begun.
            RuntimeError: a rank has ended, or has not answered within the group's timeout.
                The group is of no further use.
        """
        call = agree(
            self._group,
            lambda: _Call(
                self._layer, self.parts(tokens), self.rank, q, kv_c_normed, k_pe, out, lse, latents
            ),
        )
        with Ring(call.rounds(), self._group) as ring:
            call.attend_to_own()
            for part in range(len(call.parts)):
                ring.wait(*call.parts.place(part))
                call.attend_to(part)
        return call.result(out, lse, latents)


class _Call:
    """One rank's forward call under way."""

    def __init__(
        self, layer: MLAPrefillLayer, parts: PromptParts, rank: int, q: Any, kv_c_normed: Any,
        k_pe: Any, out: Any, lse: Any, latents: Any,
    ) -> None:  # fmt: skip
        self.layer, self.parts, self.rank = layer, parts, rank
        self.own, self.offsets = parts.of(rank), parts.offsets(rank)
        rows, heads = self.offsets[-1], (layer.num_heads, "the layer's num_heads")
        own, anything = (rows, "the rank's tokens"), (None, "")
        _check(q, "q", None, own, heads, anything)
        _check(kv_c_normed, "kv_c_normed", q.dtype, own, anything)
        if k_pe is not None:
            _check(k_pe, "k_pe", q.dtype, own, anything)
        self.q, self.kv_c_normed, self.k_pe = q, kv_c_normed, k_pe
        self.kv_lora_rank = kv_c_normed.shape[1]
        width = self.kv_lora_rank + (0 if k_pe is None else k_pe.shape[1])
        if out is not None:
            _check(out, "out", None, own, heads, (layer.v_head_dim, "the layer's v_head_dim"))
        if lse is not None:
            _check(lse, "lse", torch.float32, heads, own)
        if latents is not None:
            _check(
                latents, "latents", q.dtype, (parts.tokens, "tokens"),
                (width, "kv_lora_rank + qk_rope_head_dim"),
            )  # fmt: skip
        #: What all ranks must agree on.
        self.terms = {
            "tokens": parts.tokens,
            "part_tokens": parts.part_tokens,
            "kv_lora_rank": self.kv_lora_rank,
            "qk_rope_head_dim": width - self.kv_lora_rank,
            "the element size of q": q.element_size(),
        }
        self.blocks = [q.new_empty((parts.offsets(r)[-1], width)) for r in range(parts.ranks)]
        self.blocks[rank][:, : self.kv_lora_rank] = kv_c_normed
        if k_pe is not None:
            self.blocks[rank][:, self.kv_lora_rank :] = k_pe
        self.out = q.new_empty((rows, layer.num_heads, layer.v_head_dim), dtype=torch.float32)
        self.lse = q.new_empty((layer.num_heads, rows), dtype=torch.float32)
        self._part_out, self._part_lse = torch.empty_like(self.out), torch.empty_like(self.lse)

    def rounds(self) -> list[list[Any]]:
        """The blocks of two parts that each rank has of a round."""
        rows = 2 * self.parts.part_tokens
        return [
            [block[number * rows : (number + 1) * rows] for block in self.blocks]
            for number in range(self.parts.rounds)
        ]

    def attend_to_own(self) -> None:
        """Each of the rank's parts to itself, causally."""
        self.layer.forward(
            self.q, self.kv_c_normed, self.k_pe, query_start_loc=self.offsets, out=self.out,
            lse=self.lse,
        )  # fmt: skip

    def attend_to(self, part: int) -> None:
        """What of the rank's tokens lies behind a part, to all of it."""
        later = next((i for i, own in enumerate(self.own) if own > part), None)
        if later is None:
            return
        begin = self.offsets[later]
        out, lse = self._part_out[begin:], self._part_lse[:, begin:]
        keys = self.latents_of(part)
        self.layer.forward(
            self.q[begin:], None, None, keys.unsqueeze(0), context_lens=[len(keys)], out=out,
            lse=lse, context_only=True,
        )  # fmt: skip
        so_far, lse_so_far = self.out[begin:], self.lse[:, begin:]
        merge_attn_states(so_far, out, lse, so_far, lse_so_far, output_lse=lse_so_far)

    def latents_of(self, part: int) -> Any:
        number, owner = self.parts.place(part)
        is_second = part % (2 * self.parts.ranks) >= self.parts.ranks
        begin = self.parts.part_tokens * (2 * number + is_second)
        return self.blocks[owner][begin : begin + len(self.parts.span(part))]

    def result(self, out: Any, lse: Any, latents: Any) -> Any:
        if lse is not None:
            lse.copy_(self.lse)
        if latents is not None:
            for part in range(len(self.parts)):
                span = self.parts.span(part)
                latents[span.start : span.stop] = self.latents_of(part)
        return self.out.to(self.q.dtype) if out is None else out.copy_(self.out)


def _check(tensor: Any, name: str, dtype: Any, *shape: tuple[int | None, str]) -> None:
    """What would be found only after the ranks have begun.

    Args:
        dtype: None: any.
        shape: each dimension, None: any, and what it is.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: is of type {type(tensor).__name__}, must be a torch.Tensor")
    if tensor.ndim != len(shape):
        raise ValueError(f"{name}.ndim = {tensor.ndim}: must be {len(shape)}")
    for i, (wanted, what) in enumerate(shape):
        if wanted is not None and tensor.shape[i] != wanted:
            raise ValueError(f"{name}.shape[{i}] = {tensor.shape[i]}: must be {wanted}, {what}")
    if tensor.device.type != "cpu":
        raise ValueError(f"{name}.device = {tensor.device}: must be cpu")
    if dtype is not None and tensor.dtype != dtype:
        raise ValueError(f"{name}.dtype = {tensor.dtype}: must be {dtype}")
