# SPDX-License-Identifier: Apache-2.0
"""What each rank of a group has, brought to all of them from neighbour to neighbour."""

from threading import Event, Thread
from typing import Any

import torch
import torch.distributed as dist


class Ring:
    """Blocks that travel while their receiver works: each rank hands on what it got last.

    They do so in rounds: those of the first are everywhere before others are sent. A thread of
    its own waits for them. As long as it runs nobody else may use the group.
    """

    def __init__(self, rounds: list[list[Any]], group: Any) -> None:
        """
        Args:
            rounds: of each round contiguous memory for each rank's block, the own one filled;
                the same sizes on all ranks.
        """
        # Gloo knows fewer types than torch.
        self._rounds = [[block.view(torch.uint8) for block in blocks] for blocks in rounds]
        self._group = group
        self._rank, self._ranks = dist.get_rank(group), dist.get_world_size(group)
        self._arrived = [[Event() for _ in blocks] for blocks in rounds]
        for arrived in self._arrived:
            arrived[self._rank].set()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="mla_prefill.distributed", daemon=True)

    def __enter__(self) -> "Ring":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """What this rank has to hand on others wait for, whatever it is left with."""
        self._thread.join()

    def wait(self, number: int, rank: int) -> None:
        """Until that rank's block of that round is there.

        Raises:
            RuntimeError: it will not come.
        """
        self._arrived[number][rank].wait()
        if self._failure is not None:
            raise RuntimeError(
                f"rank {self._rank} waits for the latents of rank {rank}: another rank has ended, "
                f"or has not answered within the group's timeout ({self._failure})"
            ) from self._failure

    def _run(self) -> None:
        try:
            for blocks, arrived in zip(self._rounds, self._arrived, strict=True):
                for step in range(self._ranks - 1):
                    sent = (self._rank - step) % self._ranks
                    received = (sent - 1) % self._ranks
                    for work in self._exchange(blocks[sent], blocks[received]):
                        work.wait()
                    arrived[received].set()
        except BaseException as failure:
            self._failure = failure
            for arrived in self._arrived:
                for event in arrived:
                    event.set()

    def _exchange(self, sent: Any, received: Any) -> list[Any]:
        """Begins to send one block to the next rank and to receive one from the one before."""
        works = []
        for block, neighbour, transfer in (
            (sent, self._rank + 1, dist.isend),
            (received, self._rank - 1, dist.irecv),
        ):
            # The last round may have none of a rank's.
            if block.numel() > 0:
                peer = dist.get_global_rank(self._group, neighbour % self._ranks)
                works.append(transfer(block, peer, self._group))
        return works
