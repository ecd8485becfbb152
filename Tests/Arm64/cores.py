"""Arm's cores as llvm-mca models them, and programs for them as text."""

import collections
import os
import re
import shutil
import subprocess

OBJDUMP = "aarch64-linux-gnu-objdump"
MULTIPLICATIONS = ("fmla", "bfmmla")
# Of either in a cycle: cores have two or four pipelines for them.
CORES = {"neoverse-n1": 2, "neoverse-v1": 4, "neoverse-v2": 4, "neoverse-n2": 2}
# The core of these that has no BF16.
WITHOUT_BF16 = "neoverse-n1"
ITERATIONS = 300

Instruction = collections.namedtuple("Instruction", "address name operands")
BRANCH = re.compile(r"b|bl|blr|br|ret|b\..*|cbn?z|tbn?z")
LINE = re.compile(r"^\s*([0-9a-f]+):\t(\S+)\s*(.*)$")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")


def functions(path):
    """Name and instructions of each."""
    text = subprocess.run(
        [OBJDUMP, "-d", "--no-show-raw-insn", path], check=True, capture_output=True, text=True
    ).stdout
    found = {}
    for row in text.splitlines():
        if match := FUNCTION.match(row):
            found[match.group(1)] = body = []
        elif match := LINE.match(row):
            body.append(
                Instruction(int(match.group(1), 16), match.group(2), match.group(3).split("//")[0].strip()))
    return found


def modelling():
    """A llvm-mca that knows the cores; None where there is none."""
    for program in [os.environ.get("LLVM_MCA")] + [f"llvm-mca-{v}" for v in range(24, 16, -1)] + ["llvm-mca"]:
        if program and shutil.which(program):
            version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            if int(re.search(r"LLVM version (\d+)", version).group(1)) >= 17:
                return program
    return None


def cycles(llvm_mca, core, block):
    """What a block of instructions takes, once and again, all data being in the L1 cache."""
    straight = [f"{i.name} {i.operands}" for i in block if not BRANCH.fullmatch(i.name)]
    if not straight:
        return 0
    # Addresses that another section has are numbers like any other.
    text = re.sub(r"[0-9a-f]+ <[^>]*>", "0", "\n".join(straight))
    report = subprocess.run(
        [llvm_mca, "-mtriple=aarch64", f"-mcpu={core}", "-mattr=+bf16", f"-iterations={ITERATIONS}"],
        input=text, check=True, capture_output=True, text=True,
    ).stdout
    return int(re.search(r"Total Cycles:\s+(\d+)", report).group(1)) / ITERATIONS
