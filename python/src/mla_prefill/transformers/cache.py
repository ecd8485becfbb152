# SPDX-License-Identifier: Apache-2.0
"""A cache of latents that grows in place."""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicIndexedLayer, DynamicLayer

#: Tokens that a layer's first memory has room for.
_ROOM = 256


class LatentLayer(DynamicLayer):
    """A `DynamicLayer` that does not copy what it holds for each new token.

    ``keys`` are latents, ``[batch, 1, tokens, kv_lora_rank]``, ``values`` the keys' part
    with rope; both are views of memory that has room for more tokens, as many again when
    it is full.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, **others: Any) -> None:
        super().__init__(**others)
        self._memory: dict[str, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *others: Any, **more: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        if length:
            _require_same_kind("key_states", key_states, self.keys)
            _require_same_kind("value_states", value_states, self.values)
        self.keys = self._appended("keys", self.keys, key_states, length)
        self.values = self._appended("values", self.values, value_states, length)
        return self.keys, self.values

    def _appended(
        self, name: str, held: torch.Tensor, new: torch.Tensor, length: int
    ) -> torch.Tensor:
        memory, end = self._memory.get(name), length + new.shape[-2]
        # Whoever reorders batches, for beams say, leaves tensors of his own.
        if memory is None or not _is_begin(held, memory) or end > memory.shape[-2]:
            shape = *new.shape[:-2], max(end, 2 * length, _ROOM), new.shape[-1]
            memory = self._memory[name] = new.new_empty(shape)
            if length:
                memory[..., :length, :] = held
        memory[..., length:end, :] = new
        return memory[..., :end, :]


class IndexedLatentLayer(LatentLayer, DynamicIndexedLayer):
    """The same with an indexer's keys, ``[batch, tokens, index_head_dim]``."""

    indexer_keys: torch.Tensor

    def update_indexer(self, indexer_key_states: torch.Tensor) -> torch.Tensor:
        if not self.is_indexer_initialized:
            self.lazy_initialization_indexer(indexer_key_states)
        held = self.indexer_keys
        length = held.shape[1] if held.numel() else 0
        if length:
            _require_same_kind("indexer_key_states", indexer_key_states, held)
        self.indexer_keys = self._appended("indexer_keys", held, indexer_key_states, length)
        return self.indexer_keys


class LatentCache(DynamicCache):
    """A `DynamicCache` for models that `enable` has switched: ``generate(cache=...)``.

    Where a `DynamicCache` copies all that it holds for each new token, it grows in place.
    """

    def __init__(self, config: Any, offloading: bool = False) -> None:
        """
        Raises:
            ValueError: ``offloading``, which is not served.
        """
        if offloading:
            raise ValueError("offloading = True: must be False: a LatentCache stays on the CPU")
        super().__init__(config=config)
        for index, layer in enumerate(self.layers):
            if type(layer) is DynamicLayer:
                self.layers[index] = LatentLayer()
            elif type(layer) is DynamicIndexedLayer:
                self.layers[index] = IndexedLatentLayer()


def _is_begin(held: torch.Tensor, memory: torch.Tensor) -> bool:
    return (
        held.data_ptr() == memory.data_ptr()
        and held.stride() == memory.stride()
        and held.shape[0] == memory.shape[0]
    )


def _require_same_kind(name: str, new: torch.Tensor, held: torch.Tensor) -> None:
    if (*new.shape[:-2], new.shape[-1]) != (*held.shape[:-2], held.shape[-1]):
        raise ValueError(
            f"{name} = {tuple(new.shape)}: must go with the cache's {tuple(held.shape)}: "
            "it was filled by another model or batch"
        )
