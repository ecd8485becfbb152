"""Gate on a wheel: what is compiled in it is of one architecture and needs nothing newer of the
C and C++ libraries than the library itself.

    wheel_files.py WHEEL [MACHINE]
"""

import os
import platform
import sys
import tempfile
import zipfile

from library import OLDEST, newer_than_oldest

#: e_machine of ELF files.
MACHINES = {"x86_64": 62, "aarch64": 183}


def compiled(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {os.path.basename(name): archive.read(name) for name in archive.namelist() if ".so" in name}


def main(wheel, machine=platform.machine()):
    """Returns: how many gates fail."""
    failures = 0
    files = compiled(wheel)
    for name, data in files.items():
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            newer = newer_than_oldest(file.name)
        if data[18] != MACHINES[machine]:
            newer.append(f"it is of another machine than {machine}, {data[18]}")
        print(f"not ok {name} loads where glibc is {OLDEST['GLIBC']}: {newer}" if newer else
              f"ok {name} loads where glibc is {OLDEST['GLIBC']}, on {machine}")  # fmt: skip
        failures += bool(newer)
    if len(files) != 2:
        print(f"not ok library and extension module: {sorted(files)}")
    return failures + (len(files) != 2)


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)
