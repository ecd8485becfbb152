#!/usr/bin/env python3
"""Plants faults one at a time and says which no test finds.

    run.py --check                whether all faults of the list still apply; builds nothing
    run.py SCRATCH [PATTERN...]   plants those whose area/name a pattern is part of, or all,
                                  in a copy of the checkout in SCRATCH (8 GB, kept for the
                                  next time)

A fault is built, then met by the suites that should catch it, then by all that its file
could bear on, up to the first that fails. One that passes all of them survives: a test is
missing. One that does not compile is a mistake in the list.

What has been found is in SCRATCH/results.tsv: a fault whose line is there, and that was
caught, is left out until its text changes or the line goes.
"""

import argparse
import hashlib
import os
import re
import signal
import sys
import time

import faults
from suites import SLOW, Suites, everything_for
from workplace import BuildError, Workplace

ROOT = os.path.dirname(os.path.dirname(faults.HERE))
VERDICTS = ("caught", "survived", "missed", "does not compile")


def main():
    arguments = parse()
    try:
        listed = faults.read()
    except ValueError as error:
        sys.exit(f"not ok {error}")
    stale = faults.check(ROOT, listed)
    wants = [""] if arguments.check else arguments.patterns or [""]
    for line in stale:
        if any(pattern in line.partition(": ")[0] for pattern in wants):
            print(f"not ok {line}")
    if arguments.check:
        if not stale:
            print(f"ok {len(listed)} planted faults apply")
        sys.exit(1 if stale else 0)
    if not arguments.scratch:
        sys.exit("where is the copy to be? run.py SCRATCH [PATTERN...]")
    names = {line.partition(": ")[0] for line in stale}
    wanted = [fault for fault in in_turn(listed)
              if fault.identity not in names and any(pattern in fault.identity for pattern in wants)]
    workplace = Workplace(ROOT, arguments.scratch, arguments.python, arguments.ggml)
    # So that what is planted is mended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    suites = Suites(workplace, arguments.python, arguments.vllm, arguments.transformers)
    run = Run(workplace, suites, arguments.own)
    run.all(wanted)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", nargs="?")
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--own", action="store_true",
                        help="only the suites that the list names: what these miss is not known to survive")
    parser.add_argument("--python", default=os.path.join(ROOT, ".build-python/torch/bin/python"),
                        help="one that has torch, pytest and nanobind")
    parser.add_argument("--vllm", default=os.path.join(ROOT, ".build-vllm/bin/python"), help="one that has vLLM")
    parser.add_argument("--transformers", default=os.path.join(ROOT, ".build-transformers/bin/python"),
                        help="one that has transformers")
    parser.add_argument("--ggml", help="the folder of a llama.cpp that is built")
    return parser.parse_args()


def in_turn(listed):
    """One of each file after the other, so that a run that is stopped has seen all of them, but
    those for which slow suites may be needed last."""
    seen = {}
    for fault in listed:
        is_slow = any(suite.startswith(SLOW) or suite.endswith("@amx") for suite in fault.suites)
        place = seen.get((fault.path, is_slow), -1) + 1
        seen[fault.path, is_slow] = place
        fault.turn = (is_slow, place)
    return sorted(listed, key=lambda fault: fault.turn)


class Run:
    def __init__(self, workplace, suites, own):
        self.workplace, self.suites, self.own = workplace, suites, own
        self.file = os.path.join(workplace.scratch, "results.tsv")
        self.results = {}
        if os.path.exists(self.file):
            with open(self.file, encoding="utf-8") as file:
                self.results = {row[0]: row for row in (line.rstrip("\n").split("\t") for line in file)}

    def all(self, wanted):
        self.workplace.refresh()
        left = [fault for fault in wanted if self.results.get(fault.identity, [""] * 3)[1:3] != [digest(fault), "caught"]]
        for turn in sorted({fault.turn for fault in left}):
            faults_of_turn = [fault for fault in left if fault.turn == turn]
            self.suites.require_passing({suite: None for fault in faults_of_turn for suite, _ in self.suites.meeting(fault)})
            for fault in faults_of_turn:
                self.one(fault)
        rows = [self.results[fault.identity] for fault in wanted if fault.identity in self.results]
        for verdict in VERDICTS[1:]:
            for row in rows:
                if row[2] == verdict:
                    print(f"not ok {row[0]} {verdict}: {row[4]}")
        counts = [f"{sum(row[2] == verdict for row in rows)} {verdict}" for verdict in VERDICTS]
        print(f"{len(rows)} of {len(wanted)} planted: {', '.join(counts)}")
        sys.exit(0 if all(row[2] == "caught" for row in rows) else 1)

    def one(self, fault):
        path = os.path.join(self.workplace.tree, fault.path)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        begin = time.monotonic()
        self.workplace.plant(fault.path, fault.planted(text))
        try:
            verdict, by, how = self.judged(fault)
        finally:
            self.workplace.mend()
        seconds = f"{time.monotonic() - begin:.0f}"
        self.results[fault.identity] = [fault.identity, digest(fault), verdict, seconds, by, how]
        with open(self.file, "w", encoding="utf-8") as file:
            file.writelines("\t".join(row) + "\n" for row in self.results.values())
        print(f"{verdict:<9}{seconds:>5} s  {fault.identity}  {by}  {how}", flush=True)

    def judged(self, fault):
        try:
            others = [] if self.own else [(suite, None) for suite in everything_for(fault.path)]
            for suite, modules in self.suites.meeting(fault) + others:
                found = self.suites.failing(suite, modules)
                if found:
                    return "caught", found[0], re.sub(r"\s+", " ", found[1])
        except BuildError as error:
            return "does not compile", str(error), ""
        return "missed" if self.own else "survived", fault.meaning, ""


def digest(fault):
    text = "\n".join([fault.path, *fault.old, "", *fault.new])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()
