# SPDX-License-Identifier: Apache-2.0
"""As many threads as vLLM gave the worker, and the line that says who serves."""

from functools import cache

import mla_prefill
from mla_prefill import host
from mla_prefill.vllm_plugin.registration import logger


@cache
def use_engine_threads() -> None:
    """Once in a process, when vLLM has set up its threads.

    A worker is told its share of the cores by OMP_NUM_THREADS, which torch keeps;
    the processors of the process itself may be those of all workers.
    """
    import torch

    host.set_num_threads(torch.get_num_threads())


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
