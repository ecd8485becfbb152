# SPDX-License-Identifier: Apache-2.0
"""What commands write, and how they refuse."""

import json
import sys
from typing import Any


class Refusal(Exception):
    """An argument that makes no sense; the text names it."""


def write(text: str) -> None:
    """A text and the end of its line, to stdout, at once."""
    # Paths and variables may hold what the stream cannot spell.
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def write_json(value: Any) -> None:
    """One JSON value, in ASCII."""
    write(json.dumps(value, indent=2))


class Progress:
    """A bar on stderr, where that is a terminal; nothing elsewhere."""

    _WIDTH = 30

    def __init__(self, total: int) -> None:
        self._total = max(1, total)
        self._done = 0
        self._columns = 0
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()

    def step(self, label: str) -> None:
        """Begins the next of the steps."""
        filled = self._WIDTH * self._done // self._total
        self._show(f"[{'#' * filled}{'.' * (self._WIDTH - filled)}] {label}")
        self._done += 1

    def end(self) -> None:
        """Leaves nothing of it."""
        self._show("")
        self._show("")

    def _show(self, text: str) -> None:
        if self._is_shown:
            # Over all of what stands there.
            print("\r" + text.ljust(self._columns), end="", file=sys.stderr, flush=True)
            self._columns = len(text)
