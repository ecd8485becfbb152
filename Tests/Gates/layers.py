"""Gate on the layers: a room of Sources/MLACore uses only those below it.

    layers.py BUILD    the folder that `swift build` has put its modules into

Their order is that of the table in Sources/README.md; rooms of one row do not know one
another. The compiler judges: a room is type-checked with those below it alone, and what
uses a name of another one is an error. The stages of a call that the same page follows go
down that table, and all that it links to is there.
"""

import concurrent.futures
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCES = os.path.join(ROOT, "Sources")
CORE = os.path.join(SOURCES, "MLACore")


def table(page):
    """From the top, what each row has in its first column."""
    rows = page.split("|---|---|\n", 1)[1].split("\n\n", 1)[0]
    return [re.findall(r"`([^`]+?)/?`", row.split("|")[1]) for row in rows.splitlines()]


def first_broken_link(page):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page)
    return next((link for link in links if not os.path.exists(os.path.join(SOURCES, link))), None)


def step_up(page):
    """What is wrong with the stages of the call; "" where each lies below the one before."""
    rows = [re.compile("|".join(re.escape(name).replace(r"\*", r"\w*") for name in names)) for names in table(page)]
    before = 0
    for stage in re.findall(r"^\d+\. \[[^]]*\]\(([^)]+)\)", page, re.MULTILINE):
        row = next((i for i, names in enumerate(rows) if names.match(stage)), -1)
        if row < before:
            return f"a stage above the one before, {stage}"
        before = row
    return "" if before == len(rows) - 1 else "the last stage is not in the last row"


def files(room):
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(os.path.join(CORE, room))
                  for name in names if name.endswith(".swift"))


def first_error(build, room, below):
    """What the compiler says of a room's files; "" where all is well."""
    maps = [os.path.join(ROOT, "include")] + [os.path.join(build, f"{m}.build") for m in ("MLAKernelABI", "MLACUDAKernels", "MLAShims")]
    run = subprocess.run(
        ["swiftc", "-frontend", "-typecheck", "-parse-as-library", "-swift-version", "6", "-module-name", "MLACore",
         "-module-cache-path", os.path.join(build, "ModuleCache"), "-I", os.path.join(build, "Modules")]
        + [word for folder in maps for word in ("-Xcc", f"-fmodule-map-file={folder}/module.modulemap")]
        + [word for file in files(room) for word in ("-primary-file", file)]
        + [file for other in below for file in files(other)],
        capture_output=True, text=True)
    if run.returncode == 0:
        return ""
    said = (run.stdout + run.stderr).splitlines()
    errors = [line for line in said if re.search(r":\d+: error: ", line)]
    return (errors or said or [f"status {run.returncode}"])[0].removeprefix(ROOT + "/")


def main(build):
    with open(os.path.join(SOURCES, "README.md")) as file:
        page = file.read()
    rooms = [[name.removeprefix("MLACore/") for name in row if name.startswith("MLACore/")] for row in table(page)]
    order = [row for row in rooms if row]
    drawn = {room for rooms in order for room in rooms}
    missing = drawn ^ set(os.listdir(CORE))
    for room in sorted(missing):
        print(f"not ok MLACore/{room} is not both a folder and in the table of Sources/README.md")
    checks = [(room, [other for lower in order[row + 1:] for other in lower])
              for row, rooms in enumerate(order) for room in rooms]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        errors = list(pool.map(lambda check: first_error(os.path.abspath(build), *check), checks))
    for (room, below), error in zip(checks, errors):
        print(f"not ok MLACore/{room} uses more than {', '.join(below) or 'itself'}: {error}" if error
              else f"ok MLACore/{room} uses {', '.join(below) or 'no other'}")
    broken, up = first_broken_link(page), step_up(page)
    print(f"not ok Sources/README.md links to {broken}" if broken else "ok Sources/README.md links to what is there")
    print(f"not ok Sources/README.md: {up}" if up else "ok Sources/README.md: a call goes down")
    return 1 if missing or any(errors) or broken or up else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
