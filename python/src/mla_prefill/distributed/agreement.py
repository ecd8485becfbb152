# SPDX-License-Identifier: Apache-2.0
"""Ranks that begin together or not at all."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


def agree(group: Any, prepare: Callable[[], Any]) -> Any:
    """What ``prepare`` gives, once all ranks have it and their ``terms`` are the same.

    Raises:
        TypeError, ValueError: of ``prepare``, or another rank's has failed, or terms differ.
        RuntimeError: a rank has ended or does not answer.
    """
    prepared: Any = None
    failure = None
    try:
        prepared = prepare()
    except Exception as error:
        failure = error
    # A rank without terms says so: the others would wait for it.
    numbers = [-1] * 5 if prepared is None else list(prepared.terms.values())
    own = torch.tensor(numbers, dtype=torch.int64, device="cpu")
    everybody = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    try:
        dist.all_gather(everybody, own, group)
    except RuntimeError as error:
        if failure is None:
            raise RuntimeError(
                f"rank {dist.get_rank(group)} waits for the others to begin: a rank has ended, or "
                f"has not answered within the group's timeout ({error})"
            ) from error
    if failure is not None:
        raise failure
    for rank, terms in enumerate(everybody):
        if int(terms[0]) < 0:
            raise ValueError(f"rank {rank} has refused its arguments: see its own error")
        for name, mine, other in zip(prepared.terms, own.tolist(), terms.tolist(), strict=True):
            if mine != other:
                raise ValueError(
                    f"{name} = {mine} on rank {dist.get_rank(group)}, {other} on rank {rank}: must "
                    "be the same on all ranks"
                )
    return prepared
