#!/usr/bin/env python3
"""Plants faults, one at a time, and says which the tests do not find.

    mutants.py --check                      whether all faults still apply; builds nothing
    mutants.py WHERE SCRATCH [PATTERN...]   plants those whose name a pattern is part of, or all,
                                            in a copy in SCRATCH

WHERE is `model`, whose faults are mutants/*.txt, or `kernels`, the CUDA kernels on the model,
whose are kernels/mutants/*.txt; written as Tests/Mutants/faults.py says.
"""

import os
import shutil
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path.insert(0, os.path.join(TESTS, "Mutants"))
import faults  # noqa: E402

#: What a fault makes may never end.
PATIENCE = 120


class Model:
    folder = "Tests/SoftwareGPU/"
    lists = os.path.join(HERE, "mutants")

    def __init__(self, scratch):
        self.copy = os.path.join(scratch, "model")
        shutil.copytree(HERE, self.copy, ignore=shutil.ignore_patterns("mutants", "kernels", "__pycache__"))
        self.make = ["make", "-s", "-C", self.copy, f"OUT={os.path.join(scratch, 'out')}", "WARNINGS=-w"]

    def commands(self, _):
        """What builds the tests, and these."""
        return [*self.make, "programs"], [[*self.make, "test"]]


class Kernels:
    folder = "Sources/MLACUDAKernels/"
    lists = os.path.join(HERE, "kernels", "mutants")

    def __init__(self, scratch):
        self.out = os.path.join(scratch, "out")
        self.copy, self.tests = os.path.join(scratch, "kernels"), os.path.join(scratch, "tests")
        shutil.copytree(os.path.join(ROOT, self.folder), self.copy, ignore=shutil.ignore_patterns("cubins"))
        shutil.copytree(HERE, self.tests, ignore=shutil.ignore_patterns("mutants", "__pycache__"))

    def commands(self, suites):
        """Likewise; those of some suites: test_*."""
        programs = [os.path.join(self.out, f"test_{suite}") for suite in suites]
        make = ["make", "-s", "-C", os.path.join(self.tests, "kernels"), f"OUT={self.out}", f"SOURCES={self.copy}",
                "WARNINGS=-w"]
        return make + programs, [[program] for program in programs]


class Target:
    """Where faults are planted, and what finds them."""

    def __init__(self, what):
        self.what = what

    def verdict(self, fault):
        path = os.path.join(self.what.copy, fault.path.removeprefix(self.what.folder))
        with open(path, encoding="utf-8") as file:
            whole = file.read()
        try:
            write(path, fault.planted(whole))
            return self.run(fault.suites)
        except ValueError as error:
            return f"does not have it: {error}"
        finally:
            write(path, whole)

    def run(self, suites):
        build, tests = self.what.commands(suites)
        built = subprocess.run([*build, "-j", str(os.cpu_count())], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True)  # fmt: skip
        if built.returncode != 0:
            return "does not compile: " + built.stderr[:300]
        return "passes" if all(passes(test) for test in tests) else "fails"


def passes(test):
    process = subprocess.Popen(test, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    signal.alarm(PATIENCE)
    try:
        if any(line.startswith("not ok") for line in process.stdout):
            return False
        return process.wait() == 0
    except TimeoutError:
        return False
    finally:
        signal.alarm(0)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def check():
    status = 0
    for what in (Model, Kernels):
        listed = faults.read(what.lists)
        stale = faults.check(ROOT, listed)
        for line in stale:
            print(f"not ok {line}")
        if not stale:
            print(f"ok {len(listed)} faults of the {what.__name__.lower()} apply")
        status |= bool(stale)
    return status


def main(where, scratch, *patterns):
    what, scratch = {"model": Model, "kernels": Kernels}[where], os.path.abspath(scratch)
    # What was built before may have a fault in it.
    shutil.rmtree(scratch, ignore_errors=True)
    target = Target(what(scratch))
    wanted = [fault for fault in faults.read(what.lists)
              if any(pattern in fault.identity for pattern in patterns or [""])]
    if (verdict := target.run(sorted({suite for fault in wanted for suite in fault.suites}))) != "passes":
        sys.exit(f"not ok without any fault: the test {verdict}")
    survived = 0
    for fault in wanted:
        verdict = target.verdict(fault)
        survived += verdict != "fails"
        print(f"{'ok' if verdict == 'fails' else 'not ok'} {fault.identity}: the test {verdict}", flush=True)
    return 1 if survived else 0


def too_late(*_):
    raise TimeoutError


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, too_late)
    sys.exit(check() if sys.argv[1:] == ["--check"] else main(*sys.argv[1:]))
