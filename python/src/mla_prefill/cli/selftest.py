# SPDX-License-Identifier: Apache-2.0
"""Whether the library computes what it should on this machine: some steps of an engine on
random numbers, of each dtype and backend, against double precision. It takes seconds.

A line for each check; the exit status is 1 where one fails.
"""

import time
from argparse import ArgumentParser, Namespace

from mla_prefill import host
from mla_prefill.cli.output import write
from mla_prefill.cli.selftest_checks import Check, checks

SUMMARY = "whether results are right on this machine"


def add_arguments(parser: ArgumentParser) -> None:
    """None."""


def run(options: Namespace) -> int:
    """0 if all of them pass, else 1."""
    write(host.cpu_summary())
    begin = time.monotonic()
    results = [_passes(name, check) for name, check in checks()]
    failed = results.count(False)
    write(f"{len(results) - failed} passed, {failed} failed in {time.monotonic() - begin:.1f} s")
    return 1 if failed else 0


def _passes(name: str, check: Check) -> bool:
    try:
        errors = check()
    except Exception as raised:  # Others' classes may raise anything.
        write(f"not ok {name}: {type(raised).__name__}: {raised}")
        return False
    wrong = [error for error in errors if not error.is_within]
    for error in wrong:
        write(f"not ok {name}: error of {error.of} {error.found:.1e}, at most {error.limit:.1e}")
    if not wrong:
        write(f"ok {name}: {len(errors)} results")
    return not wrong
