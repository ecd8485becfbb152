# SPDX-License-Identifier: Apache-2.0
"""Which MLA classes of the installed transformers ``mla_prefill.transformers`` serves."""

import sys
from argparse import ArgumentParser, Namespace

from mla_prefill.cli.output import write

SUMMARY = "which classes of the installed transformers can be switched"


def add_arguments(parser: ArgumentParser) -> None:
    """None."""


def run(options: Namespace) -> int:
    """1 where transformers or torch is not installed."""
    try:
        from mla_prefill.transformers.classes import table
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed", file=sys.stderr)
        return 1
    write(table())
    return 0
