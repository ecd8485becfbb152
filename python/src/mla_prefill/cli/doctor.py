# SPDX-License-Identifier: Apache-2.0
"""What is installed here, and what it makes of this machine: for bug reports."""

from argparse import ArgumentParser, Namespace

from mla_prefill.cli.output import write, write_json
from mla_prefill.doctor import facts, report

SUMMARY = "what is installed, and what it makes of this machine (the default)"


def add_arguments(parser: ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="the same as a JSON object")


def run(options: Namespace) -> int:
    """Always 0."""
    found = facts()
    if options.json:
        write_json(found)
    else:
        write(report(found))
    return 0
