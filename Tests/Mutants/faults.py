"""The list of planted faults: how it is written, and how one is put into a tree.

A file is an area, faults are paragraphs:

    name: what is wrong with it
      in  path of the file
      by  suites that should catch it, the quickest first (see suites.py)
      - text that stands there exactly once
      + text that takes its place

Further lines of a text follow it. Those of the old text may have any indentation, those of
the new one get that of the place. A paragraph of lines that begin with "#" is a comment.
"""

import os
import re
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Fault:
    area: str
    name: str
    meaning: str
    path: str = ""
    suites: list[str] = field(default_factory=list)
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    @property
    def identity(self) -> str:
        return f"{self.area}/{self.name}"

    def planted(self, text: str) -> str:
        """The file's text with the fault. ValueError where it does not apply."""
        pattern = r"\n[ \t]*".join(re.escape(line.strip()) for line in self.old)
        places = list(re.finditer(pattern, text))
        if len(places) != 1:
            raise ValueError(f"its text stands {len(places)} times in {self.path}")
        begin, end = places[0].span()
        line = text[text.rfind("\n", 0, begin) + 1 : begin]
        indentation = line[: len(line) - len(line.lstrip())]
        margin = len(self.new[0]) - len(self.new[0].lstrip()) if self.new else 0
        lines = [line[min(margin, len(line) - len(line.lstrip())) :] for line in self.new]
        changed = text[:begin] + ("\n" + indentation).join(lines) + text[end:]
        if changed == text:
            raise ValueError("it changes nothing")
        return changed


def read(folder: str = HERE) -> list[Fault]:
    """All faults, those of each area in its own order. ValueError for what is none."""
    faults = []
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".txt"):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            paragraphs = re.split(r"\n\s*\n", file.read().strip("\n"))
        area = name.removesuffix(".txt")
        faults += [_fault(area, text) for text in paragraphs if not text.startswith("#")]
    names = [fault.identity for fault in faults]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two faults have one name: {', '.join(sorted(twice))}")
    return faults


def _fault(area: str, paragraph: str) -> Fault:
    head, *lines = paragraph.split("\n")
    name, colon, meaning = head.partition(": ")
    if not colon or not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"{area}: no fault begins with {head!r}")
    fault = Fault(area, name, meaning.strip())
    kind = ""
    for line in lines:
        kind, text = line[2:3].strip() or kind, line[4:]
        if line[:2] != "  " or kind not in ("i", "b", "-", "+"):
            raise ValueError(f"{fault.identity}: {line!r} is no line of a fault")
        if kind == "i":
            fault.path = line[5:].strip()
        elif kind == "b":
            fault.suites += line[5:].split()
        else:
            (fault.old if kind == "-" else fault.new).append(text)
    if not (fault.path and fault.suites and fault.old and fault.new):
        raise ValueError(f"{fault.identity}: has no file, suite, old text or new text")
    return fault


def check(root: str, faults: list[Fault]) -> list[str]:
    """What is wrong with those that do not apply to a checkout."""
    stale = []
    for fault in faults:
        try:
            with open(os.path.join(root, fault.path), encoding="utf-8") as file:
                fault.planted(file.read())
        except (OSError, ValueError) as error:
            stale.append(f"{fault.identity}: {error}")
    return stale
