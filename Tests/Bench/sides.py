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


class Probe:
    """The machine's speed right now, by the time of a small matrix product.

    A sample is quiet if the probes before and after it agree within a tenth: then no
    neighbour took a core from it, and none slowed down.
    """

    def __init__(self):
        self.matrix = torch.ones(192, 192)

    def __call__(self):
        times = []
        for _ in range(3):
            started = time.perf_counter()
            self.matrix @ self.matrix
            times.append(time.perf_counter() - started)
        return min(times)

    @staticmethod
    def agree(before, after):
        return max(before, after) <= 1.1 * min(before, after)


def take_turns(case, runs, flops, rounds, seconds):
    """Times each of `runs`, name -> function, once a round; "ours" must be among them.

    A contender that has spent `seconds` gets three samples, the others `rounds`; the
    first round warms up. Medians are those of the quiet samples where there are three.

    Returns: a row for each, with the relative L2 distance of its result from ours.
    """
    times = {name: [] for name in runs}
    quiet = {name: [] for name in runs}
    outs = {}
    probe = Probe()
    progress = Progress(case, rounds)
    for number in range(rounds + 1):
        for name, run in runs.items():
            if number > 3 and sum(times[name]) > seconds:
                continue
            before = probe()
            started = time.perf_counter()
            outs[name] = run()
            elapsed = time.perf_counter() - started
            after = probe()
            if number:
                times[name].append(elapsed)
                if probe.agree(before, after):
                    quiet[name].append(elapsed)
        progress.at(number)
    medians = {
        name: statistics.median(quiet[name] if len(quiet[name]) >= 3 else taken)
        for name, taken in times.items()
    }
    return [
        {
            "case": case, "contender": name, "samples": len(taken), "quiet": len(quiet[name]),
            "median_ms": medians[name] * 1e3, "best_ms": min(taken) * 1e3,
            "median_tflops": flops / medians[name] * 1e-12,
            "times_slower_than_ours": medians[name] / medians["ours"],
            "difference_from_ours": relative_error(outs[name], outs["ours"]),
        }
        for name, taken in times.items()
    ]


def median_seconds(runs, rounds):
    """Those of each of `runs`, which take turns and have been called before."""
    times = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times]


def numbers(text):
    """Of a command line, between commas."""
    return [int(part) for part in text.split(",")]


def print_header():
    print(f"{'case':>16} {'contender':>14} {'median ms':>10} {'best':>9} {'quiet':>7} {'TFLOP/s':>8} "
          f"{'ours is':>8}")


def print_rows(rows):
    for row in rows:
        print(f"{row['case']:>16} {row['contender']:>14} {row['median_ms']:>10.2f} "
              f"{row['best_ms']:>9.2f} {row['quiet']:>3}/{row['samples']:<3} "
              f"{row['median_tflops']:>8.3f} "
              f"{row['times_slower_than_ours']:>7.1f}x  (difference {row['difference_from_ours']:.1e})",
              flush=True)


def write_json(path, **report):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"torch": torch.__version__, "threads": torch.get_num_threads(), **report}, file,
                  indent=2)
