"""Gate on the library as it is installed: what it needs, exports and weighs.

    library.py INSTALLED.so HEADER
"""

import os
import re
import subprocess
import sys

ALLOWED = re.compile(r"(libc|libm|libpthread|libdl|libstdc\+\+|libgcc_s|ld-linux-(x86-64|aarch64))\.so\.\d+")
#: The releases of its libraries that it loads with, and newer ones: what manylinux_2_28 has.
OLDEST = {"GLIBC": "2.28", "GLIBCXX": "3.4.24", "CXXABI": "1.3.11", "GCC": "7.0.0"}
#: Without and with machine code for GPUs (make cubins).
MAX_BYTES = 8_500_000, 12_500_000
# What Sources/MLAAllocation hands on to; another one would end the process where it fails.
ALLOCATION = {
    "malloc", "calloc", "realloc", "posix_memalign", "free", "malloc_usable_size", "_ZdlPv", "_ZdlPvm",
    "_ZdlPvSt11align_val_t", "_ZdlPvmSt11align_val_t", "_ZnwmRKSt9nothrow_t", "_ZnwmSt11align_val_tRKSt9nothrow_t",
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


def without_version(library):
    """What no library that it needs has: all of these give their symbols versions."""
    rows = output("nm", "-D", "--undefined-only", library).splitlines()
    return [row.split()[-1] for row in rows if " U " in row and "@" not in row]


def newer_than_oldest(library):
    """Versions of symbols, as GLIBC_2.34, beyond those in OLDEST."""
    # Not the library's own.
    found = re.findall(rf"Name: ({'|'.join(OLDEST)})_([\d.]+)", output("readelf", "-VW", library))
    number = lambda version: [int(part) for part in version.split(".")]
    return sorted({f"{name}_{version}" for name, version in found if number(version) > number(OLDEST[name])})


def allocates(library):
    return {name for name in imported(library) if ALLOCATES.fullmatch(name)}


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
    gate("looks for them where the system does", names_of(library, "R(?:UN)?PATH"))
    gate("locks, signals and processes by its own means", sorted(filter(REPLACED.fullmatch, imported(library))))
    gate("imports what the runtimes have", without_version(library))
    oldest = ", ".join(f"{name} {version}" for name, version in OLDEST.items())
    gate(f"loads where there is {oldest}", newer_than_oldest(library))
    gate("exports only mla_ names", sorted(n for n in names if not n.startswith("mla_")))
    gate("every export is in the header", sorted(names - prototypes))
    gate("every function of the header is exported", sorted(prototypes - names))
    most = MAX_BYTES[has_cubins(library)]
    gate(f"{size} bytes is below {most}", [size] if size >= most else [])
    gate("allocates by functions that may fail", sorted(allocates(library) - ALLOCATION))
    # The dynamic model allocates on a thread's first access and ends the process where it fails.
    relocations = output("readelf", "-rW", library)
    dynamic_tls = r"R_X86_64_(?:DTPMOD64|DTPOFF64|TLSDESC)|R_AARCH64_(?:TLSDESC|TLS_DTP\w+)"
    gate("thread-local storage is static", re.findall(dynamic_tls, relocations))
    gate("code is not relocated", re.findall("TEXTREL", output("readelf", "-dW", library)))
    symbols = output("nm", library).splitlines()
    # Of C's kernels of an architecture the assembler marks data and code.
    others = [s for s in symbols if "MLAKernels" not in s and not re.search(r" [$][adtx](\.|$)", s)]
    gate("has symbols of the kernels alone", others or (not symbols and ["none at all"]))
    soname = f"libmlaprefill.so.{abi_version(header)}"
    gate(f"soname is {soname}", [n for n in names_of(library, "SONAME") if n != soname])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
