#!/usr/bin/env python3
"""Whole calls of the Arm kernels by the instructions that they carry out.

    calls.py WORK PLUGIN

WORK is work.c's program, PLUGIN that of instruction_counts.c. Printed are the instructions of
a call for each that multiplies and adds, the softmax's among them; and, modelled, never
measured, of a core's rate of multiplications what a call reaches: as often as each block of
instructions is carried out it takes what llvm-mca says of it, repeated. That leaves out
caches, memory and branches, and lets blocks that follow each other overlap as they would
with themselves.
"""

import collections
import functools
import subprocess
import sys

from cores import BRANCH, CORES, MULTIPLICATIONS, WITHOUT_BF16, cycles, functions, modelling

# Table, kernel, inputs, products of a multiplication; most instructions for each of these,
# and least of a core's rate.
CASES = [
    ("neon", "attention", "fp32", 4, 1.5, 0.8),
    ("neon", "projection", "fp32", 4, 1.4, 0.9),
    ("neon", "rows", "fp32", 4, 1.6, 0.85),
    ("neon", "index", "fp32", 4, 1.4, 0.9),
    ("neon_bf16", "attention", "bf16", 16, 2.0, 0.6),
    ("neon_bf16", "projection", "bf16", 16, 1.65, 0.8),
    ("neon_bf16", "rows", "bf16", 16, 1.95, 0.7),
    ("neon_bf16", "index", "bf16", 16, 1.75, 0.75),
]


def run(work, plugin, case, times):
    """A call's products, and how often which blocks were carried out, by address and length."""
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", "max", "-plugin", plugin, work, *case[:3], str(times)],
        check=True, capture_output=True, text=True)
    counts = collections.Counter()
    for row in done.stderr.splitlines():
        address, length, count = row.split()
        counts[int(address, 16), int(length)] += int(count)
    return int(done.stdout), counts


def blocks_of_a_call(work, plugin, case):
    """Of three calls less one."""
    products, one = run(work, plugin, case, 1)
    three = run(work, plugin, case, 3)[1]
    three.subtract(one)
    return products, {block: count / 2 for block, count in three.items() if count > 0}


def joined(blocks, program):
    """The emulator ends a block where a page ends, in the middle of a loop, too."""
    whole = collections.Counter(blocks)
    for (address, length), count in sorted(blocks.items()):
        end = address + 4 * length
        if end % 4096 or BRANCH.fullmatch(program[end - 4].name):
            continue
        for behind in [block for block in blocks if block[0] == end]:
            shared = min(count, whole[behind])
            whole[address, length + behind[1]] += shared
            whole[behind] -= shared
            whole[address, length] -= shared
            count -= shared
    return +whole


def main(work, plugin):
    program = {i.address: i for body in functions(work).values() for i in body}
    llvm_mca = modelling()
    status = 0

    @functools.cache
    def instructions(block):
        return [program[block[0] + 4 * i] for i in range(block[1])]

    @functools.cache
    def taken(core, block):
        return cycles(llvm_mca, core, instructions(block))

    for case in CASES:
        *name, products_each, most, least = case
        products, blocks = blocks_of_a_call(work, plugin, case)
        blocks = joined(blocks, program)
        all_of_them = sum(block[1] * count for block, count in blocks.items())
        multiplications = sum(
            count * sum(i.name in MULTIPLICATIONS for i in instructions(block)) for block, count in blocks.items())
        each = all_of_them / multiplications
        is_ok = each <= most
        modelled = ""
        # The rest is too little to count, and too many blocks to model.
        often = [block for block, count in blocks.items() if block[1] * count > all_of_them / 2000]
        for core, rate in CORES.items() if llvm_mca else ():
            if core == WITHOUT_BF16 and name[0] == "neon_bf16":
                continue
            reached = products / products_each / rate / sum(blocks[b] * taken(core, b) for b in often)
            is_ok = is_ok and reached >= least
            modelled += f", {core.removeprefix('neoverse-')} {reached:.2f}"
        print(
            f"{'ok' if is_ok else 'not ok'} {' '.join(name)}: {each:.2f} instructions for each that multiplies"
            + modelled)
        status = status or not is_ok
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
