# SPDX-License-Identifier: Apache-2.0
"""Attention time inside the engine: the plug-in against what vLLM brings along.

Two engines live side by side and take turns, so that a neighbour's load meets both.
"""

import os
import random
import statistics
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from engine import Engine
from model import HEADS, LAYERS, VOCABULARY, write_model

PROMPT = 4096
ROUNDS = 5
NAMES = {"plugin": "mla_prefill", "vllm": "vLLM CPU_SDPA", "peer": "torch SDPA, padded v"}


def main() -> None:
    generator = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        model = write_model(Path(folder))
        engines = {name: stack.enter_context(Engine(model, name)) for name in NAMES}
        for engine in engines.values():
            engine.generate([[2, 3, 4] * 50], 1)
        for _ in range(ROUNDS):
            prompt = [generator.randrange(2, VOCABULARY) for _ in range(PROMPT)]
            for name, engine in engines.items():
                engine.usage()
                engine.generate([prompt], 1)
                (usage,) = engine.usage()
                assert usage["new_tokens"] == LAYERS * PROMPT
                seconds[name].append(usage["seconds"] / LAYERS)
    cores = len(os.sched_getaffinity(0))
    print(f"attention of a {PROMPT}-token prompt per layer, {HEADS} heads, bf16, {cores} cores,")
    print(f"inside vLLM 0.32's CPU engine; {ROUNDS} rounds in turn:")
    print(f"{'':24}{'median ms':>12}{'best ms':>12}{'TFLOP/s':>10}{'slower by':>12}")
    ours = statistics.median(seconds["plugin"])
    for name, times in seconds.items():
        median, best = statistics.median(times), min(times)
        rate = PROMPT**2 / 2 * 2 * (192 + 128) * HEADS / median / 1e12
        print(
            f"{NAMES[name]:24}{median * 1e3:12.1f}{best * 1e3:12.1f}{rate:10.3f}"
            f"{median / ours:11.1f}x"
        )


if __name__ == "__main__":
    main()
