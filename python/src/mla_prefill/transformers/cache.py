# SPDX-License-Identifier: Apache-2.0
"""A cache of latents that grows in place."""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

#: Tokens that a layer's first buffer has room for.
_ROOM = 256


class LatentLayer(DynamicLayer):
    """A `DynamicLayer` that does not copy what it holds for each new token.

    ``keys`` are the latents, ``[batch, 1, tokens, kv_lora_rank]``, ``values`` the keys'
    part with rope; both are views of rows that have room for more tokens.
    """

    def __init__(self, **others: Any) -> None:
        super().__init__(**others)
        self._rows: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *others: Any, **more: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[2]
        self._require_same_kind(key_states, value_states, length)
        rows, rank = self._rows_for(key_states, value_states, length, end), key_states.shape[3]
        rows[:, length:end, :rank] = key_states[:, 0]
        rows[:, length:end, rank:] = value_states[:, 0]
        self.keys = rows[:, None, :end, :rank]
        self.values = rows[:, None, :end, rank:]
        return self.keys, self.values

    def _require_same_kind(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        for name, new, held in (
            ("key_states", keys, self.keys),
            ("value_states", values, self.values),
        ):
            if new.shape[1] != 1:
                raise ValueError(f"{name} = {tuple(new.shape)}: must be latents, of one head")
            if length and (new.shape[0], new.shape[3]) != (held.shape[0], held.shape[3]):
                raise ValueError(
                    f"{name} = {tuple(new.shape)}: must go with the cache's {tuple(held.shape)}: "
                    "it was filled by another model or batch"
                )

    def _rows_for(
        self, keys: torch.Tensor, values: torch.Tensor, length: int, end: int
    ) -> torch.Tensor:
        """Rows that hold what the layer holds and have room until ``end``.

        Whoever changes ``keys`` and ``values``, for beams say, leaves tensors of his own.
        """
        rows = self._rows
        if rows is not None and self._is_view(rows) and end <= rows.shape[1]:
            return rows
        shape = keys.shape[0], max(end, 2 * length, _ROOM), keys.shape[3] + values.shape[3]
        rows = self._rows = keys.new_empty(shape)
        if length:
            rows[:, :length, : keys.shape[3]] = self.keys[:, 0]
            rows[:, :length, keys.shape[3] :] = self.values[:, 0]
        return rows

    def _is_view(self, rows: torch.Tensor) -> bool:
        return (
            self.keys.data_ptr() == rows.data_ptr()
            and self.keys.stride() == rows[:, None].stride()
            and self.keys.shape[0] == rows.shape[0]
        )


class LatentCache(DynamicCache):
    """A `DynamicCache` for models that `enable` has switched: ``generate(cache=...)``.

    Where a `DynamicCache` copies all that it holds for each new token, it grows in place.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        for index, layer in enumerate(self.layers):
            if type(layer) is DynamicLayer:
                self.layers[index] = LatentLayer()
