# SPDX-License-Identifier: Apache-2.0
"""The threads that vLLM gave the worker, and the lines that say who serves."""

from functools import cache

import mla_prefill
from mla_prefill import host
from mla_prefill.vllm_plugin.registration import logger


@cache
def use_engine_threads() -> None:
    """Once in a process, when vLLM has set up its threads.

    A worker is told its share of the cores by OMP_NUM_THREADS, which torch keeps;
    the processors of the process itself may be those of all workers. The threads
    themselves are torch's too: vLLM has pinned them, and between two of torch's
    operators they are awake.
    """
    import torch

    host.set_num_threads(torch.get_num_threads())
    host.use_openmp_threads()


@cache
def announce(server: str) -> None:
    """Once in a process for each way to serve it, at the first run."""
    logger.info(
        "MLA prefill is served by mla_prefill %s, %s, bf16 kernels %s, %d threads",
        mla_prefill.__version__,
        server,
        host.cpu_features()["bf16_isa"],
        host.get_num_threads(),
    )


@cache
def announce_refusal(server: str, reason: str) -> None:
    """Once in a process for each reason, at the first run that goes vLLM's way."""
    logger.warning("MLA prefill under %s goes vLLM's own way: %s", server, reason)
