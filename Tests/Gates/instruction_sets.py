"""Gate against instruction-set leaks: code for a stronger CPU in what a weaker one runs.

    instruction_sets.py OBJECTS.LinkFileList UNSTRIPPED.so

A weak symbol that two modules define is kept once; if a kernel module's copy wins,
every CPU runs it. So: (1) no object holds instructions above its module's set;
(2) no function that a stronger module may lose or win to another is weak;
(3) in the linked library every function with such instructions belongs to a module
that may have them - the Swift runtime included.

Encodings tell more than mnemonics: in 64-bit code the byte C4 or C5 always begins a
VEX instruction (AVX and later), 62 always an EVEX one (AVX-512).
"""

import collections
import re
import subprocess
import sys

BASELINE, AVX2, AVX512, AVX512_BF16, AMX = range(5)
NAMES = ["baseline", "AVX2", "AVX-512", "AVX-512 BF16", "AMX"]
LEVELS = {
    "MLAKernelsAVX2": AVX2,
    "MLAKernelsAVX512": AVX512,
    "MLAKernelsAVX512BF16": AVX512_BF16,
    "MLAKernelsAMX": AMX,
}

LINE = re.compile(r"^\s*[0-9a-f]+:\t((?:[0-9a-f]{2} )+)\s*\t?(\S*)\s*(.*)$")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
PREFIXES = {"26", "2e", "36", "3e", "64", "65", "66", "67", "f0", "f2", "f3"}
TILE = re.compile(r"t(dp\w+|ile\w+)|(ld|st)tilecfg")
BF16 = re.compile(r"v(dpbf16ps|cvtne2?ps2?2bf16|cvtneps2bf16)\w*")
# What the CPU check of the AVX2 table does not ask for.
NOT_IN_AVX2_TABLE = re.compile(r"andn|bextr|bls\w+|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|lzcnt")
# An older CPU reads lzcnt as bsr, silently; tzcnt as bsf, which compilers emit where
# the results agree.
SILENT = re.compile(r"lzcnt\w*")


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def level_of(code, mnemonic):
    """The weakest level whose CPUs have this instruction."""
    bytes_ = code.split()
    while bytes_ and bytes_[0] in PREFIXES:
        bytes_.pop(0)
    first = bytes_[0] if bytes_ else ""
    if TILE.fullmatch(mnemonic):
        return AMX
    if BF16.fullmatch(mnemonic):
        return AVX512_BF16
    if first == "62":
        return AVX512
    if first in ("c4", "c5"):
        # k registers are VEX encoded, and so are the BMI instructions.
        return AVX512 if mnemonic.startswith("k") or NOT_IN_AVX2_TABLE.fullmatch(mnemonic) else AVX2
    return AVX512 if SILENT.fullmatch(mnemonic) else BASELINE


def strongest(path):
    """Each function's strongest level, with the instruction that shows it."""
    found = {}
    function = "?"
    process = subprocess.Popen(
        ["objdump", "-d", "--insn-width=16", path], stdout=subprocess.PIPE, text=True)
    for row in process.stdout:
        if match := FUNCTION.match(row):
            function = match.group(1)
            found.setdefault(function, (BASELINE, ""))
        elif match := LINE.match(row):
            level = level_of(match.group(1), match.group(2))
            if level > found[function][0]:
                found[function] = (level, f"{match.group(2)} {match.group(3)}".strip())
    if process.wait() != 0:
        sys.exit(f"objdump failed on {path}")
    return found


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


def main(object_list, library):
    report = Report()
    with open(object_list) as file:
        objects = [row.strip().strip("'\"") for row in file if row.strip()]
    levels = {}  # function -> levels of the modules that define it
    owners = collections.defaultdict(set)  # global symbol -> modules that define or want it
    weak = collections.defaultdict(set)  # weak symbol -> modules that define it
    for path in objects:
        module = module_of(path)
        allowed = LEVELS.get(module, BASELINE)
        code = strongest(path)
        report.gate(
            f"{module}/{path.rsplit('/', 1)[1]} stays within {NAMES[allowed]}",
            [f"{name}: {what} ({NAMES[level]})" for name, (level, what) in code.items()
             if level > allowed])
        for name in code:
            levels[name] = max(levels.get(name, BASELINE), allowed)
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
         if any(LEVELS.get(module) for module in modules) and len(owners[name]) > 1
         and name in levels])
    report.gate(
        "every function of the library stays within the module it comes from",
        [f"{name}: {what} ({NAMES[level]})" for name, (level, what) in strongest(library).items()
         if level > levels.get(name.split("@")[0], BASELINE)])
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
