"""What a 64-bit Arm object has of instructions beyond ARMv8-A.

Whatever a disassembler that knows no more than a level's instructions cannot name is beyond
that level.
"""

import os
import re
import shutil
import subprocess
import sys

BASELINE, BF16, MORE = range(3)
NAMES = ["ARMv8-A", "ARMv8-A with BF16", "more than BF16"]
LEVELS = {"MLAKernelsNEONBF16": BF16}

#: The toolchain's own, which knows every architecture.
OBJDUMP = os.path.join(os.path.dirname(os.path.realpath(shutil.which("swiftc"))), "llvm-objdump")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
# The compiler's atomic operations look at what the CPU has before they use it.
LOOKS_FIRST = re.compile(r"__aarch64_(cas|ldadd|ldclr|ldeor|ldset|swp)\d+_\w+")


def unknown(path, *attributes):
    """Of each function the first line that a disassembler cannot name, None where it can all."""
    found = {}
    function = "?"
    process = subprocess.Popen(
        [OBJDUMP, "-d", "--mcpu=generic", *attributes, path], stdout=subprocess.PIPE, text=True)
    for row in process.stdout:
        if match := FUNCTION.match(row):
            function = match.group(1)
            found.setdefault(function, None)
        elif "<unknown>" in row:
            found[function] = found[function] or " ".join(row.split())
    if process.wait() != 0:
        sys.exit(f"llvm-objdump failed on {path}")
    return found


def strongest(path):
    """Each function's strongest level, with the instruction that shows it."""
    beyond_bf16 = unknown(path, "--mattr=+bf16")
    found = {}
    for function, row in unknown(path).items():
        if row is None or LOOKS_FIRST.fullmatch(function):
            found[function] = (BASELINE, "")
        else:
            found[function] = (MORE, beyond_bf16[function]) if beyond_bf16[function] else (BF16, row)
    return found
