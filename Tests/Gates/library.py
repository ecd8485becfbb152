"""Gate on the library as it is installed: what it needs, exports and weighs.

    library.py INSTALLED.so HEADER
"""

import os
import re
import subprocess
import sys

ALLOWED = re.compile(r"(libc|libm|libstdc\+\+|libgcc_s|ld-linux-x86-64)\.so\.\d+")
#: Without and with machine code for GPUs (make cubins).
MAX_BYTES = 8_000_000, 12_000_000
# What Sources/MLAAllocation hands on to; another one would end the process where it fails.
ALLOCATION = {
    "malloc", "calloc", "realloc", "posix_memalign", "free", "malloc_usable_size", "_ZdlPv", "_ZdlPvm",
    "_ZdlPvmSt11align_val_t", "_ZnwmRKSt9nothrow_t", "_ZnwmSt11align_val_tRKSt9nothrow_t",
    # Of crash reports alone.
    "strdup",
}  # fmt: skip
ALLOCATES = re.compile(r"(?!_ZSt)\w*alloc\w*|\w*memalign|free|v?asprintf|str\w?dup|_Z[nd][wal]\w*")
# What only the Swift runtime would call. Its locks go to Sources/MLAShims/swift_runtime.c,
# where fork() waits for them, and of the environment and of crashes it is to know nothing.
REPLACED = re.compile(
    r"(pthread_(mutex_(try)?lock|once|cond_.*|rwlock_.*)|sem_.*|__cxa_guard_.*)"
    r"|environ|sig(nal|action|altstack)|v?fork|clone|exec.*|posix_spawn.*"
)


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def names_of(library, tag):
    """Entries of the dynamic section that name a library."""
    return re.findall(rf"\({tag}\).*\[(.*)\]", output("readelf", "-dW", library))


def exported(library):
    rows = output("nm", "-D", "--defined-only", library).splitlines()
    return {row.split()[-1].split("@")[0] for row in rows}


def imported(library):
    rows = output("nm", "-D", "--undefined-only", library).splitlines()
    return {row.split()[-1].split("@")[0] for row in rows}


def allocates(library):
    rows = output("nm", "-D", "--undefined-only", library).splitlines()
    names = {row.split()[-1].split("@")[0] for row in rows}
    return {name for name in names if ALLOCATES.fullmatch(name)}


def has_cubins(library):
    """Whether there are ELF files for NVIDIA's CUDA in it."""
    with open(library, "rb") as file:
        return bool(re.search(rb"\x7fELF\x02.{11}..\xbe\0", file.read(), re.DOTALL))


def abi_version(header):
    with open(header) as file:
        return re.search(r"#define MLA_ABI_VERSION (\d+)", file.read()).group(1)


def declared(header):
    with open(header) as file:
        text = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    return set(re.findall(r"^\w[\w *]*?\b(mla_\w+)\([^;{}]*\);", text, re.M))


def main(library, header):
    failures = 0

    def gate(name, broken):
        nonlocal failures
        failures += bool(broken)
        print(f"not ok {name}: {broken}" if broken else f"ok {name}")

    names, prototypes = exported(library), declared(header)
    size = os.path.getsize(library)
    gate("needs only the C and C++ runtimes", [n for n in names_of(library, "NEEDED") if not ALLOWED.fullmatch(n)])
    gate("locks, signals and processes by its own means", sorted(filter(REPLACED.fullmatch, imported(library))))
    gate("exports only mla_ names", sorted(n for n in names if not n.startswith("mla_")))
    gate("every export is in the header", sorted(names - prototypes))
    gate("every function of the header is exported", sorted(prototypes - names))
    most = MAX_BYTES[has_cubins(library)]
    gate(f"{size} bytes is below {most}", [size] if size >= most else [])
    gate("allocates by functions that may fail", sorted(allocates(library) - ALLOCATION))
    # The dynamic model allocates on a thread's first access and ends the process where it fails.
    relocations = output("readelf", "-rW", library)
    gate("thread-local storage is static", re.findall(r"R_X86_64_(?:DTPMOD64|DTPOFF64|TLSDESC)", relocations))
    gate("is stripped", re.findall(r"\.symtab", output("readelf", "-SW", library)))
    soname = f"libmlaprefill.so.{abi_version(header)}"
    gate(f"soname is {soname}", [n for n in names_of(library, "SONAME") if n != soname])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
