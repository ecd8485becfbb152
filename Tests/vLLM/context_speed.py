# SPDX-License-Identifier: Apache-2.0
"""A layer's prefill attention on cached context under CPU_MLA, with the plug-in and without.

Engines of a case live side by side and take turns, so that a neighbour's load meets each.
"""

import random
import statistics
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import prefix_connector
import speculation
from engine import Engine
from mla_prefill import host
from model import HEADS, VOCABULARY, write_model

KEPT, NEW = 3584, 512
VERIFIED = 24
ROUNDS = 5
PREFILL = {"mla_prefill": "plugin", "vLLM": "vllm"}


def tokens(count: int) -> list[int]:
    return [random.randrange(2, VOCABULARY) for _ in range(count)]


def reloaded(model: Path, folder: Path, stack: ExitStack) -> dict[str, list[float]]:
    """Seconds a layer of new tokens on a prefix that a connector reloads."""
    running = {
        name: stack.enter_context(
            Engine(
                model, prefill, kv_transfer_config=prefix_connector.config(folder / prefill, KEPT)
            )
        )
        for name, prefill in PREFILL.items()
    }
    beginning = tokens(KEPT)
    for engine in running.values():
        for _ in range(2):
            engine.prefill(beginning + tokens(NEW))
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(ROUNDS):
        prompt = beginning + tokens(NEW)
        for name, engine in running.items():
            calls = engine.prefill(prompt)["calls"]
            assert {new for new, _ in calls} == {NEW}
            seconds[name].append(statistics.mean(each for _, each in calls))
    return seconds


def verified(model: Path, stack: ExitStack) -> dict[str, list[float]]:
    """Seconds a layer of steps that verify drafts behind a prompt."""
    running = {
        name: stack.enter_context(Engine(model, prefill, speculative_config=speculation.NGRAM))
        for name, prefill in PREFILL.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for index in range(ROUNDS + 1):
        prompt = tokens(KEPT)
        for name, engine in running.items():
            calls = engine.prefill(prompt, VERIFIED)["calls"]
            steps = [each for new, each in calls if new <= 1 + speculation.DRAFTED]
            if index:
                seconds[name].append(statistics.mean(steps))
    return seconds


def asked() -> float:
    """How many times as fast as without the plug-in it is to be."""
    return 2.5 if host.cpu_features()["bf16_isa"] in ("portable", "avx2") else 5


def report(name: str, seconds: dict[str, list[float]]) -> None:
    ours, theirs = seconds.values()
    times = sorted(their / our for our, their in zip(ours, theirs, strict=True))
    medians = "   ".join(
        f"{engine} {statistics.median(each) * 1e3:.1f} ({min(each) * 1e3:.1f})"
        for engine, each in seconds.items()
    )
    spread = f"{times[0]:.1f} to {times[-1]:.1f}"
    ratio, wanted = statistics.median(times), asked()
    verdict = "reached" if ratio >= wanted else "missed"
    print(f"{name}: {medians}   times {ratio:.1f} ({spread}); {wanted} is {verdict}")


def main() -> None:
    random.seed(0)
    print(f"ms a layer, {HEADS} heads, bf16: medians (and best) of {ROUNDS} rounds in turn;")
    print(host.cpu_summary())
    with TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model")
        with ExitStack() as stack:
            name = f"{NEW} new tokens on a reloaded prefix of {KEPT}"
            report(name, reloaded(model, Path(folder), stack))
        with ExitStack() as stack:
            name = f"steps that verify {speculation.DRAFTED} drafts behind {KEPT} tokens"
            report(name, verified(model, stack))


if __name__ == "__main__":
    main()
