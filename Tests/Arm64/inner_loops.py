#!/usr/bin/env python3
"""The inner loops of the Arm kernels, out of their objects: what no test of results sees.

    inner_loops.py OBJECT...

Each loop of multiplications keeps its sums in registers, and takes few instructions beside
them. How near it comes to a core's rate of multiplications is modelled, never measured:
by llvm-mca, LLVM 17 or later, whose models are those of the cores by name; LLVM_MCA says
which program that is. Without it the other two are checked alone.
"""

import re
import sys

from cores import BRANCH, CORES, MULTIPLICATIONS, WITHOUT_BF16, cycles, functions, modelling

# Functions whose products take most of the time: there the full register tile must be.
FULL_TILES = {
    "MLAKernelsNEON": ["computeScores", "accumulateOutputs", "multiplyPanel"],
    "MLAKernelsNEONBF16": ["computeScores", "accumulateOutputs", "multiplySet"],
}
FULL = 24
# By multiplications in a loop: instructions beside them for each, and of a core's rate.
LIMITS = {24: (0.4, 0.95), 20: (0.45, 0.95), 16: (0.55, 0.95)}
# Of rows as they lie each operand comes by an address of its own.
LIMITS_OF_ROWS = {24: (0.45, 0.95), 16: (0.85, 0.95)}


def loops(body):
    """What lies between a branch back and its target, where that is straight."""
    places = {instruction.address: i for i, instruction in enumerate(body)}
    for end, branch in enumerate(body):
        target = re.search(r"\b([0-9a-f]+) <", branch.operands)
        if not BRANCH.fullmatch(branch.name) or not target:
            continue
        start = places.get(int(target.group(1), 16), end + 1)
        if start <= end and not any(
            BRANCH.fullmatch(i.name) for i in body[start:end]
        ):
            yield body[start : end + 1]


def product_loops(body):
    """Loops that do little but multiply: the softmax multiplies, too."""
    for loop in loops(body):
        count = sum(i.name in MULTIPLICATIONS for i in loop)
        if count >= 8 and 2 * count > len(loop):
            yield loop, count


def check(module, name, loop, count, limits, llvm_mca):
    """One line of the table, and whether all is as it must be."""
    spilled = sum("[sp" in i.operands for i in loop)
    beside = (len(loop) - count) / count
    most, least = limits.get(count, (None, None))
    is_ok = spilled == 0 and (most is None or beside <= most)
    modelled = []
    for core in CORES if llvm_mca else ():
        if core == WITHOUT_BF16 and any(i.name == "bfmmla" for i in loop):
            continue
        share = count / CORES[core] / cycles(llvm_mca, core, loop)
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
            limits = LIMITS_OF_ROWS if "RowBlock" in name else LIMITS
            for loop, count in product_loops(body):
                named = known[0] if known else "-"
                is_ok = check(module, named, loop, count, limits, llvm_mca) and is_ok
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
