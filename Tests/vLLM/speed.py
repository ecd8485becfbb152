# SPDX-License-Identifier: Apache-2.0
"""Prefill inside the engine: the plug-in against what vLLM brings along.

All engines live side by side and take turns, so that a neighbour's load meets each.
Without AMX, vLLM's AMX_MLA operators run with AVX-512, as do the plug-in's kernels;
where vLLM's build for this CPU lacks them, AMX_MLA is left out.
"""

import os
import random
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import amx_operators
from engine import Engine
from model import HEADS, LAYERS, VOCABULARY, write_model

PROMPT = 4096
ROUNDS = 5
CPU_MLA = {
    "mla_prefill layer": "plugin",
    "mla_prefill backend": "backend",
    "vLLM CPU_SDPA": "vllm",
    "torch SDPA, padded v": "peer",
}
AMX_MLA = {"mla_prefill layer": "plugin", "vLLM": "vllm"}


def engines(model: Path, stack: ExitStack) -> dict[str, Engine]:
    """By a name in the table; the first is what the others are compared with."""
    wanted = {f"CPU_MLA, {name}": Engine(model, prefill) for name, prefill in CPU_MLA.items()}
    missing = amx_operators.missing()
    if missing:
        print(f"without AMX_MLA: vLLM's build for this CPU has no {missing}")
    wanted |= {
        f"AMX_MLA, {name}": Engine(model, prefill, as_amx_host=True, block_size=32)
        for name, prefill in AMX_MLA.items()
        if not missing
    }
    return {name: stack.enter_context(engine) for name, engine in wanted.items()}


def main() -> None:
    generator = random.Random(0)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        running = engines(write_model(Path(folder)), stack)
        for engine in running.values():
            engine.prefill([2, 3, 4] * 50)
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in running}
        for _ in range(ROUNDS):
            prompt = [generator.randrange(2, VOCABULARY) for _ in range(PROMPT)]
            for name, engine in running.items():
                engine.usage()
                seconds = engine.prefill(prompt)
                (usage,) = engine.usage()
                if usage["new_tokens_calls"]:
                    seconds["backend"] = usage["seconds"]
                rows[name].append(seconds)
    cores = len(os.sched_getaffinity(0))
    print(f"prefill of {PROMPT} tokens, {LAYERS} layers, {HEADS} heads, bf16, {cores} cores, in")
    print(f"vLLM 0.32's CPU engine; medians (and best) of {ROUNDS} rounds in turn. Attention is")
    print("what the plug-in replaces, from latents to the output: vLLM's forward_mha. Of it the")
    print("backend is attention proper, without up-projection, concatenation and copies.")
    print(f"{'':30}{'attention ms a layer':>22}{'of it backend':>15}{'tokens/s':>16}")
    for name, results in rows.items():
        # A layer is one call: nothing in it is apart.
        attention, backend = (
            cell([result[part] / LAYERS * 1e3 for result in results if part in result], min)
            for part in ("attention", "backend")
        )
        rate = cell([PROMPT / result["total"] for result in results], max)
        print(f"{name:30}{attention:>22}{backend:>15}{rate:>16}")


def cell(values: list[float], best: Callable[[list[float]], float]) -> str:
    return f"{statistics.median(values):.0f} ({best(values):.0f})" if values else "-"


if __name__ == "__main__":
    main()
