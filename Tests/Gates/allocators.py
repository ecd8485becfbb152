"""Gate against kernels that allocate memory: one that is refused it could only abort.

    allocators.py OBJECTS.LinkFileList

No object of a kernel module may want an allocator, C's, C++'s or Swift's; Swift's
temporary allocations call one where they do not fit on the stack.
"""

import collections
import re
import subprocess
import sys

ALLOCATOR = re.compile(
    r"(m|c|re|v)alloc|reallocarray|free|posix_memalign|aligned_alloc|memalign|mmap|_Zn[wa]\w*|_Zd[la]\w*"
    r"|swift_\w*([aA]lloc|[rR]etain|[rR]elease)\w*")


def wanted(path):
    rows = subprocess.run(["nm", "--undefined-only", path], check=True, capture_output=True, text=True)
    return [row.split()[-1] for row in rows.stdout.splitlines() if " U " in row]


def main(object_list):
    found = collections.defaultdict(set)
    with open(object_list) as file:
        for path in (row.strip().strip("'\"") for row in file if row.strip()):
            if module := re.search(r"/(MLAKernels\w+)\.build/", path):
                found[module.group(1)] |= {name for name in wanted(path) if ALLOCATOR.fullmatch(name)}
    for module, names in sorted(found.items()):
        print(f"not ok {module} allocates: {', '.join(sorted(names))}" if names
              else f"ok {module} allocates nothing")
    if not found:
        print("not ok no kernel module is among the objects")
    return 1 if any(found.values()) or not found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
