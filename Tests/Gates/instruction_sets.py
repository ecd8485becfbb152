"""Gate against instruction-set leaks: code for a stronger CPU in what a weaker one runs.

    instruction_sets.py OBJECTS.LinkFileList UNSTRIPPED.so

A weak symbol that two modules define is kept once; if a kernel module's copy wins,
every CPU runs it. So: (1) no object holds instructions above its module's set;
(2) no function that a stronger module may lose or win to another is weak;
(3) in the linked library every function with such instructions belongs to a module
that may have them - the Swift runtime included.
"""

import collections
import re
import subprocess
import sys

import arm_instructions
import x86_instructions

def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def symbols(path):
    """Global text symbols an object defines, with nm's letter, and what it wants of others."""
    defined, wanted = {}, set()
    for row in output("nm", path).splitlines():
        *_, kind, name = row.split()
        if kind in "TWVu":
            defined[name] = kind
        elif kind in "Uwv":
            wanted.add(name)
    return defined, wanted


def module_of(path):
    return re.search(r"/([^/]+)\.build/", path).group(1)


class Report:
    def __init__(self):
        self.failed = 0

    def gate(self, name, broken):
        self.failed += bool(broken)
        print(f"not ok {name}" if broken else f"ok {name}")
        for line in broken[:20]:
            print(f"   {line}")


def instructions_of(library):
    is_arm = "AArch64" in output("readelf", "-h", library)
    return arm_instructions if is_arm else x86_instructions


def main(object_list, library):
    report, sets = Report(), instructions_of(library)
    with open(object_list) as file:
        objects = [row.strip().strip("'\"") for row in file if row.strip()]
    levels = {}  # function -> levels of the modules that define it
    owners = collections.defaultdict(set)  # global symbol -> modules that define or want it
    weak = collections.defaultdict(set)  # weak symbol -> modules that define it
    for path in objects:
        module = module_of(path)
        allowed = sets.LEVELS.get(module, 0)
        code = sets.strongest(path)
        report.gate(
            f"{module}/{path.rsplit('/', 1)[1]} stays within {sets.NAMES[allowed]}",
            [f"{name}: {what} ({sets.NAMES[level]})" for name, (level, what) in code.items()
             if level > allowed])
        for name in code:
            levels[name] = max(levels.get(name, 0), allowed)
        defined, wanted = symbols(path)
        for name, kind in defined.items():
            owners[name].add(module)
            if kind != "T":
                weak[name].add(module)
        for name in wanted:
            owners[name].add(module)

    report.gate(
        "no weak function of a kernel module is shared with another module",
        [f"{name}: {', '.join(sorted(owners[name]))}" for name, modules in sorted(weak.items())
         if any(sets.LEVELS.get(module) for module in modules) and len(owners[name]) > 1
         and name in levels])
    report.gate(
        "every function of the library stays within the module it comes from",
        [f"{name}: {what} ({sets.NAMES[level]})" for name, (level, what) in sets.strongest(library).items()
         if level > levels.get(name.split("@")[0], 0)])
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
