#!/usr/bin/env python3
"""Plants faults in the model, one at a time, and says which its tests do not find.

    mutants.py --check                whether all faults still apply; builds nothing
    mutants.py SCRATCH [PATTERN...]   plants those whose name a pattern is part of, or all, in
                                      a copy of this folder in SCRATCH

The lists are mutants/*.txt, written as Tests/Mutants/faults.py says.
"""

import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(TESTS, "Mutants"))
import faults  # noqa: E402

FOLDER = "Tests/SoftwareGPU/"


def main():
    listed = faults.read(os.path.join(HERE, "mutants"))
    if sys.argv[1:] == ["--check"]:
        stale = faults.check(os.path.dirname(TESTS), listed)
        for line in stale:
            print(f"not ok {line}")
        if not stale:
            print(f"ok {len(listed)} faults of the model apply")
        sys.exit(1 if stale else 0)
    scratch, patterns = os.path.abspath(sys.argv[1]), sys.argv[2:] or [""]
    copy = os.path.join(scratch, "model")
    # What was built before may have a fault in it.
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(HERE, copy, ignore=shutil.ignore_patterns("mutants", "__pycache__"))
    if run(copy, scratch) != "passes":
        sys.exit("not ok the tests fail without any fault")
    survived = 0
    for fault in listed:
        if any(pattern in fault.identity for pattern in patterns):
            verdict = plant(fault, copy, scratch)
            survived += verdict != "fails"
            print(f"{'ok' if verdict == 'fails' else 'not ok'} {fault.identity}: the test {verdict}", flush=True)
    sys.exit(1 if survived else 0)


def plant(fault, copy, scratch):
    path = os.path.join(copy, fault.path.removeprefix(FOLDER))
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    try:
        write(path, fault.planted(whole))
        return run(copy, scratch)
    except ValueError as error:
        return f"does not have it: {error}"
    finally:
        write(path, whole)


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def run(copy, scratch):
    make = ["make", "-s", "-C", copy, f"OUT={os.path.join(scratch, 'out')}"]
    jobs = ["-j", str(os.cpu_count())]
    built = subprocess.run([*make, *jobs, "programs"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if built.returncode != 0:
        return "does not compile: " + built.stderr[:300]
    try:
        done = subprocess.run([*make, "test"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    except subprocess.TimeoutExpired:
        return "fails"
    return "passes" if done.returncode == 0 else "fails"


if __name__ == "__main__":
    main()
