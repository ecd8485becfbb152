"""What an x86-64 object has of instructions beyond the baseline.

Encodings tell more than mnemonics: in 64-bit code the byte C4 or C5 always begins a
VEX instruction (AVX and later), 62 always an EVEX one (AVX-512).
"""

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
