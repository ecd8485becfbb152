# SPDX-License-Identifier: Apache-2.0
"""Attention of one module over its latents."""

from threading import Lock
from typing import Any, NamedTuple

import torch

from mla_prefill._untraced import untraced
from mla_prefill.layer import MLAPrefillLayer
from mla_prefill.transformers import switched
from mla_prefill.transformers.masks import KeyRanges, Span

#: The attention implementation under which a switched module hands over its latents.
IMPLEMENTATION = "mla_prefill"


class _Packed(NamedTuple):
    """A layer and what it was made from: of another source another layer is made."""

    layer: MLAPrefillLayer
    source: tuple[Any, ...]
    #: Kept, so that no other tensor comes to be where one of these was.
    weights: list[torch.Tensor]


class LatentExpansion:
    """Stands in the place of a module's ``expand_kv`` and expands nothing.

    The module's forward hands what it returns to the attention function, which comes back
    to it: queries, latents and ``kv_b_proj`` are all that `MLAPrefillLayer` needs. Under
    any other attention implementation it expands as the module's class does.
    """

    def __init__(self, module: Any, previous: str) -> None:
        """
        Args:
            previous: the attention implementation that the module had before.
        """
        self.module = module
        self.previous = previous
        self._packed: _Packed | None = None
        self._packing = Lock()
        switched.remember(self)

    def __getstate__(self) -> dict[str, Any]:
        """Copies of a model, also those in files, pack their weights themselves."""
        return {"module": self.module, "previous": self.previous}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from mla_prefill.transformers.registration import register

        register()
        self.__init__(**state)  # type: ignore[misc]

    def __call__(
        self, kv_nope: torch.Tensor, k_rot: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.module.config._attn_implementation == IMPLEMENTATION:
            return kv_nope, k_rot
        return type(self.module).expand_kv(self.module, kv_nope, k_rot)

    @untraced
    def attention(
        self,
        query: torch.Tensor,
        latents: torch.Tensor,
        k_pe: torch.Tensor,
        ranges: KeyRanges,
        scale: float,
        indices: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            query: ``[batch, heads, queries, qk_head_dim]``.
            latents, k_pe: ``[batch, 1, keys, kv_lora_rank]`` and ``[..., qk_rope_head_dim]``.
            indices: ``[batch, queries, any]`` of int32, the keys that each query attends to;
                -1 is none. None: all.

        Returns:
            ``[batch, queries, heads, v_head_dim]``, 0 where a query is padding.
        """
        self._check(query, latents, k_pe)
        layer = self._layer(query, scale)
        batch, heads, queries, _ = query.shape
        spans = ranges.spans(queries)
        offsets = [0]
        for span in spans:
            offsets.append(offsets[-1] + span.rows)
        contexts = [span.key - span.begin for span in spans]
        latents, k_pe = latents[:, 0], k_pe[:, 0]
        has_context, has_rope = any(contexts), k_pe.shape[2] > 0
        is_whole = offsets[-1] == batch * queries
        make = query.new_empty if is_whole else query.new_zeros
        out = make(batch, queries, heads, layer.v_head_dim)
        if offsets[-1] == 0:
            return out
        result = layer.forward(
            q=_rows(query.transpose(1, 2), [(span.row, span.rows) for span in spans]),
            kv_c_normed=_rows(latents, [(span.key, span.rows) for span in spans]),
            k_pe=_rows(k_pe, [(span.key, span.rows) for span in spans]) if has_rope else None,
            kv_cache=latents if has_context else None,
            k_pe_cache=k_pe if has_context and has_rope else None,
            context_starts=[span.begin for span in spans] if has_context else None,
            context_lens=contexts,
            query_start_loc=offsets,
            topk_indices=None if indices is None else _positions(indices, spans),
            out=out.flatten(0, 1) if is_whole else None,
        )
        if not is_whole:
            for rows, span, offset in zip(out, spans, offsets, strict=False):
                rows[span.row : span.row + span.rows] = result[offset : offset + span.rows]
        return out

    def _check(self, query: torch.Tensor, latents: torch.Tensor, k_pe: torch.Tensor) -> None:
        module = self.module
        if torch.is_grad_enabled() and any(each.requires_grad for each in (query, latents, k_pe)):
            raise ValueError(
                "query: must not require gradients: run the model under torch.no_grad() or "
                "torch.inference_mode(), or disable() it to train it"
            )
        wanted = {
            "key": (latents, (query.shape[0], 1, latents.shape[2], module.kv_lora_rank)),
            "value": (k_pe, (query.shape[0], 1, latents.shape[2], module.qk_rope_head_dim)),
        }
        for name, (tensor, shape) in wanted.items():
            if tuple(tensor.shape) != shape:
                raise ValueError(
                    f"{name} = {tuple(tensor.shape)}: must be {shape}, latents of this module: "
                    "the cache was filled by another model or batch"
                )
            if tensor.dtype != query.dtype:
                raise ValueError(
                    f"{name}.dtype = {tensor.dtype}: must be that of query, {query.dtype}"
                )

    def _layer(self, query: torch.Tensor, scale: float) -> MLAPrefillLayer:
        """The layer of the weights that the module has now."""
        linear = self.module.kv_b_proj
        weights = [*linear.parameters(), *linear.buffers()]
        source = query.dtype, scale, *map(_version, weights)
        packed = self._packed
        if packed is None or packed.source != source:
            with self._packing:
                packed = self._packed
                if packed is None or packed.source != source:
                    packed = self._packed = _Packed(self._pack(query, scale), source, weights)
        return packed.layer

    def _pack(self, query: torch.Tensor, scale: float) -> MLAPrefillLayer:
        module = self.module
        return MLAPrefillLayer(
            num_heads=query.shape[1],
            scale=scale,
            kv_lora_rank=module.kv_lora_rank,
            qk_nope_head_dim=module.qk_nope_head_dim,
            qk_rope_head_dim=module.qk_rope_head_dim,
            v_head_dim=module.v_head_dim,
            kv_b_proj=projection_weights(module.kv_b_proj, query.dtype, module.kv_lora_rank),
            dtype=query.dtype,
        )


def _positions(indices: torch.Tensor, spans: list[Span]) -> torch.Tensor:
    """The spans' rows of what attention is told, counted from each request's first key."""
    begins = [span.begin for span in spans]
    if any(begins):
        first = torch.tensor(begins, dtype=torch.int32, device=indices.device)
        indices = (indices - first[:, None, None]).clamp(min=-1)
    return _rows(indices, [(span.row, span.rows) for span in spans])


def _rows(states: torch.Tensor, spans: list[tuple[int, int]]) -> torch.Tensor:
    """Of ``[batch, tokens, ...]`` each request's rows (begin, count), behind each other."""
    begin, count = spans[0]
    if all(span == spans[0] for span in spans):
        return states[:, begin : begin + count].flatten(0, 1)
    return torch.cat(
        [each[begin : begin + count] for each, (begin, count) in zip(states, spans, strict=True)]
    )


def projection_weights(linear: Any, dtype: torch.dtype, rank: int) -> torch.Tensor:
    """``[rows, rank]``, whatever the layer keeps its weights as.

    What is quantised, adapted or parametrised says by its output for the identity what it
    multiplies by.
    """
    if (
        type(linear) is torch.nn.Linear
        and not linear._forward_hooks
        and not linear._forward_pre_hooks
        and type(linear.weight) in (torch.Tensor, torch.nn.Parameter)
        and linear.weight.dtype in (torch.float32, torch.float16, torch.bfloat16)
    ):
        return linear.weight.detach()
    with torch.no_grad():
        return linear(torch.eye(rank, dtype=dtype, device="cpu")).to(dtype).t().contiguous()


def _version(weight: torch.Tensor) -> tuple[int, int, int, torch.dtype]:
    # Tensors made under inference_mode count no versions.
    version = 0 if weight.is_inference() else weight._version
    return id(weight), version, weight.data_ptr(), weight.dtype
