#!/usr/bin/env python3
"""The inner loops of the Arm kernels, out of their objects: what no test of results sees.

    inner_loops.py OBJECT...

Each loop of multiplications keeps its sums in registers, and takes few instructions beside
them. How near it comes to a core's rate of multiplications is modelled, never measured:
by llvm-mca, LLVM 17 or later, whose models are those of the cores by name; LLVM_MCA says
which program that is. Without it the other two are checked alone.
"""

import collections
import os
import re
import shutil
import subprocess
import sys

OBJDUMP = "aarch64-linux-gnu-objdump"
MULTIPLICATIONS = ("fmla", "bfmmla")
# Of either in a cycle: cores have two or four pipelines for them.
CORES = {"neoverse-n1": 2, "neoverse-v1": 4, "neoverse-v2": 4, "neoverse-n2": 2}
# The core of these that has no BF16.
WITHOUT_BF16 = "neoverse-n1"
ITERATIONS = 300

# Functions whose products take most of the time: there the full register tile must be.
FULL_TILES = {
    "MLAKernelsNEON": ["computeScores", "accumulateOutputs", "multiplyPanel"],
    "MLAKernelsNEONBF16": ["computeScores", "accumulateOutputs", "multiplySet"],
}
FULL = 24
# By multiplications in a loop: instructions beside them for each, and of a core's rate.
# Sixteen sums are fewer than four pipelines of latency 5 can have under way.
LIMITS = {24: (0.4, 0.95), 16: (0.55, 0.75)}

Instruction = collections.namedtuple("Instruction", "address name operands")
BRANCH = re.compile(r"b|b\..*|cbn?z|tbn?z")
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


def loops(body):
    """What lies between a branch back and its target, where that is straight."""
    places = {instruction.address: i for i, instruction in enumerate(body)}
    for end, branch in enumerate(body):
        target = re.search(r"\b([0-9a-f]+) <", branch.operands)
        if not BRANCH.fullmatch(branch.name) or not target:
            continue
        start = places.get(int(target.group(1), 16), end + 1)
        if start <= end and not any(
            BRANCH.fullmatch(i.name) or i.name in ("bl", "ret") for i in body[start:end]
        ):
            yield body[start : end + 1]


def product_loops(body):
    """Loops that do little but multiply: the softmax multiplies, too."""
    for loop in loops(body):
        count = sum(i.name in MULTIPLICATIONS for i in loop)
        if count >= 8 and 2 * count > len(loop):
            yield loop, count


def fraction(llvm_mca, core, loop, count):
    """Of the core's rate of multiplications, by the model."""
    straight = [f"{i.name} {i.operands}" for i in loop if not BRANCH.fullmatch(i.name)]
    report = subprocess.run(
        [llvm_mca, "-mtriple=aarch64", f"-mcpu={core}", "-mattr=+bf16", f"-iterations={ITERATIONS}"],
        input="\n".join(straight), check=True, capture_output=True, text=True,
    ).stdout
    cycles = int(re.search(r"Total Cycles:\s+(\d+)", report).group(1))
    return count * ITERATIONS / CORES[core] / cycles


def modelling():
    """A llvm-mca that knows the cores."""
    for program in [os.environ.get("LLVM_MCA")] + [f"llvm-mca-{v}" for v in range(24, 16, -1)] + ["llvm-mca"]:
        if program and shutil.which(program):
            version = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
            if int(re.search(r"LLVM version (\d+)", version).group(1)) >= 17:
                return program
    return None


def check(module, name, loop, count, llvm_mca):
    """One line of the table, and whether all is as it must be."""
    spilled = sum("[sp" in i.operands for i in loop)
    beside = (len(loop) - count) / count
    most, least = LIMITS.get(count, (None, None))
    is_ok = spilled == 0 and (most is None or beside <= most)
    modelled = []
    for core in CORES if llvm_mca else ():
        if core == WITHOUT_BF16 and any(i.name == "bfmmla" for i in loop):
            continue
        share = fraction(llvm_mca, core, loop, count)
        is_ok = is_ok and (least is None or share >= least)
        modelled.append(f"{core.removeprefix('neoverse-')} {share:.2f}")
    print(
        f"{'ok' if is_ok else 'not ok'} {module} {name}: {count} multiplications in {len(loop)} "
        f"instructions, {spilled} on the stack" + "".join(f", {m}" for m in modelled))
    return is_ok


def main(paths):
    llvm_mca = modelling()
    print("modelled, of a core's rate of multiplications: " + (llvm_mca or "no llvm-mca of LLVM 17 or later"))
    is_ok, full = True, set()
    for path in paths:
        for name, body in functions(path).items():
            module = re.search(r"MLAKernels(NEONBF16|NEON)?", name)
            if not module:
                continue
            module = module.group(0)
            known = [f for f in FULL_TILES.get(module, []) if f in name]
            for loop, count in product_loops(body):
                is_ok = check(module, known[0] if known else "-", loop, count, llvm_mca) and is_ok
                if count == FULL:
                    full.update((module, f) for f in known)
    for module, names in FULL_TILES.items():
        for name in names:
            if (module, name) not in full:
                print(f"not ok {module} {name}: no loop of {FULL} multiplications")
                is_ok = False
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
