# SPDX-License-Identifier: Apache-2.0
"""Four ranks, two in each of the networks of Tests/Distributed/two_networks.sh.

two_networks.py STORE: a file that the ranks meet at; names would be looked for in vain here.
"""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

TOKENS, RANKS = 400, 4


def be(store, rank):
    import torch.distributed as dist
    from reference_layer import relative
    from test_distributed_torch import attend, layer_for, problem_of, rows_of

    from mla_prefill.distributed import shard

    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    out, _, latents = attend(rank, RANKS, TOKENS, "float32", 32, "up_projected", {})
    problem = problem_of(TOKENS)
    whole = layer_for(problem).forward(*rows_of(problem, slice(None))).double().numpy()
    assert relative(out, whole[shard(TOKENS, rank, RANKS, 32).numpy()]) < 1e-6
    print(f"rank {rank} has received {received()} bytes, latents are {latents.nbytes // 2}")
    assert received() > latents.nbytes // 4


def received():
    """Bytes that have come by the cable."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == os.environ["GLOO_SOCKET_IFNAME"]:
            return int(numbers.split()[0])
    return 0


if len(sys.argv) > 2:
    be(sys.argv[1], int(sys.argv[2]))
else:
    there = ["nsenter", "--target", os.environ["OTHER"], "--net"]
    processes = [
        subprocess.Popen(
            [*(there if rank >= 2 else []), sys.executable, __file__, sys.argv[1], str(rank)],
            env=os.environ | {"GLOO_SOCKET_IFNAME": f"mla{rank // 2}"},
        )
        for rank in range(RANKS)
    ]
    sys.exit(any([process.wait(timeout=100) for process in processes]))
