# SPDX-License-Identifier: Apache-2.0
"""Processes that are the ranks of a group."""

import multiprocessing
import pickle
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path
from time import monotonic

_context = multiprocessing.get_context("forkserver")
# Imported once; a rank is forked from there.
_context.set_forkserver_preload(["torch", "torch.distributed", "mla_prefill.distributed", "numpy"])


def run(ranks, function, *arguments, timeout=60.0, patience=120.0):
    """What ``function(rank, ranks, *arguments)`` returns on each rank, in order: its error's
    type and text, as a pair, where it has raised, and None where the process has ended.

    Args:
        timeout: of the group, in seconds.
        patience: after so many seconds the test fails: a rank hangs.
    """
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            _context.Process(target=_be, args=(rank, ranks, folder, timeout, function, arguments))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        end = monotonic() + patience
        try:
            for process in processes:
                process.join(max(0, end - monotonic()))
                assert process.exitcode is not None, "a rank hangs"
        finally:
            for process in processes:
                if process.exitcode is None:
                    process.kill()
        answers = [Path(folder) / str(rank) for rank in range(ranks)]
        return [pickle.loads(path.read_bytes()) if path.exists() else None for path in answers]


def _be(rank, ranks, folder, timeout, function, arguments):
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks,
        timeout=timedelta(seconds=timeout),
    )  # fmt: skip
    try:
        result = function(rank, ranks, *arguments)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        result = type(error).__name__, str(error)
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(result))
