# SPDX-License-Identifier: Apache-2.0
"""Whether the tensors of a module are still what they were."""

from collections.abc import Iterator
from typing import Any

import torch


class Contents:
    """What the tensors of a kv_b_proj hold, in 8 bytes for each of their rows.

    Neither where a tensor lies nor torch's count of its versions tells whether it has
    changed: weight loaders write through ``.data``, which does not count. Reading it does,
    all of it, at the speed of memory.
    """

    def __init__(self, kv_b_proj: Any) -> None:
        tensors = list(_tensors(kv_b_proj))
        self._kinds = type(kv_b_proj), [(tensor.dtype, tensor.shape) for tensor in tensors]
        sums = [_row_sums(tensor) for tensor in tensors if tensor.numel()]
        self._sums = torch.cat([torch.empty(0, dtype=torch.int64), *sums])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Contents):
            return NotImplemented
        return self._kinds == other._kinds and torch.equal(self._sums, other._sums)

    __hash__ = None  # type: ignore[assignment]


def _tensors(linear: Any) -> Iterator[torch.Tensor]:
    if isinstance(linear, torch.nn.Module):
        yield from linear.parameters()
        yield from linear.buffers()
    else:
        yield from (value for value in vars(linear).values() if isinstance(value, torch.Tensor))


def _row_sums(tensor: torch.Tensor) -> torch.Tensor:
    """Of their bits, as the widest integers that a row is made of."""
    # Some quantized weights lie transposed.
    rows = tensor.detach() if tensor.is_contiguous() else tensor.detach().mT.contiguous()
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim else rows.reshape(1, 1)
    is_whole = all(n * rows.itemsize % 8 == 0 for n in (rows.shape[1], rows.storage_offset()))
    return rows.view(torch.int64 if is_whole else torch.uint8).sum(-1, dtype=torch.int64)
