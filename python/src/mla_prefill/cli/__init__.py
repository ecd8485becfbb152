# SPDX-License-Identifier: Apache-2.0
"""``python -m mla_prefill``: reports and checks for people who have installed the package.

A module for each command, with ``SUMMARY``, ``add_arguments(parser)`` and ``run(options)``,
which returns the exit status. None of them needs torch, transformers or numpy to be installed
unless it is about it.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from mla_prefill.cli import backends, bench, doctor, selftest, transformers
from mla_prefill.cli.output import Refusal

_COMMANDS = {
    "doctor": doctor,
    "backends": backends,
    "bench": bench,
    "selftest": selftest,
    "transformers": transformers,
}


def main(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name; without any, ``doctor``.

    Returns:
        The exit status: 0; 1 where what was asked for does not hold or is not there; 130 when
        interrupted.

    Raises:
        SystemExit: with 2 for arguments that make no sense, which stderr tells of; with 0
            after ``--help``.
    """
    options = _parser().parse_args(arguments or ["doctor"])
    try:
        status: int = options.run(options)
        return status
    except Refusal as refusal:
        parser: argparse.ArgumentParser = options.parser
        parser.error(str(refusal))
    except BrokenPipeError:
        # Who read the output has seen enough. What is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mla_prefill",
        description="MLA prefill with native CPU kernels. Without a command: doctor.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        own = commands.add_parser(
            name, help=command.SUMMARY, description=command.__doc__, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_arguments(own)
        own.set_defaults(run=command.run, parser=own)
    return parser
