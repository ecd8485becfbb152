"""What the Python benchmarks share: contenders that take turns, a progress bar, a table."""

import json
import statistics
import sys
import time

import torch

import mla_prefill

HEADS, NOPE, ROPE, V, RANK = 16, 128, 64, 128, 512
QK = NOPE + ROPE
SCALE = QK**-0.5


class Progress:
    """A bar on stderr, where that is a terminal; nothing elsewhere."""

    WIDTH = 30

    def __init__(self, label, total):
        self.label, self.total = label, total

    def at(self, done):
        if not sys.stderr.isatty():
            return
        filled = self.WIDTH * done // self.total
        bar = "#" * filled + "." * (self.WIDTH - filled)
        end = "\r" + " " * (len(self.label) + self.WIDTH + 4) + "\r" if done == self.total else ""
        print(f"\r{self.label} [{bar}]{end}", end="", file=sys.stderr, flush=True)


def use_threads_of_torch():
    """All contenders on the same threads: torch's, which are awake after its operators."""
    mla_prefill.set_num_threads(torch.get_num_threads())
    assert mla_prefill.use_openmp_threads()


def relative_error(out, expected):
    difference = (out.double() - expected.double()).norm()
    return float(difference / expected.double().norm())


def take_turns(case, runs, flops, rounds, seconds):
    """Times each of `runs`, name -> function, once a round; "ours" must be among them.

    A contender that has spent `seconds` gets three samples, the others `rounds`; the
    first round warms up.

    Returns: a row for each, with the relative L2 distance of its result from ours.
    """
    times = {name: [] for name in runs}
    outs = {}
    progress = Progress(case, rounds)
    for number in range(rounds + 1):
        for name, run in runs.items():
            if number > 3 and sum(times[name]) > seconds:
                continue
            started = time.perf_counter()
            outs[name] = run()
            elapsed = time.perf_counter() - started
            if number:
                times[name].append(elapsed)
        progress.at(number)
    ours = statistics.median(times["ours"])
    return [
        {
            "case": case, "contender": name, "samples": len(taken),
            "median_ms": statistics.median(taken) * 1e3, "best_ms": min(taken) * 1e3,
            "median_tflops": flops / statistics.median(taken) * 1e-12,
            "times_slower_than_ours": statistics.median(taken) / ours,
            "difference_from_ours": relative_error(outs[name], outs["ours"]),
        }
        for name, taken in times.items()
    ]


def print_header():
    print(f"{'case':>16} {'contender':>14} {'median ms':>10} {'best':>9} {'TFLOP/s':>8} {'ours is':>8}")


def print_rows(rows):
    for row in rows:
        print(f"{row['case']:>16} {row['contender']:>14} {row['median_ms']:>10.2f} "
              f"{row['best_ms']:>9.2f} {row['median_tflops']:>8.3f} "
              f"{row['times_slower_than_ours']:>7.1f}x  (difference {row['difference_from_ours']:.1e})",
              flush=True)


def write_json(path, **report):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"torch": torch.__version__, "threads": torch.get_num_threads(), **report}, file,
                  indent=2)
