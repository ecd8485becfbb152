#!/usr/bin/env python3
"""Machine code of the CUDA kernels, beside this file, for the library to have in it.

    make.py [sm_NN...]    all architectures, or some, which are then checked alone

Kernels/MLAKernels90.cu, for sm_90a, is checked and no more: the library has no use for it yet.
NVRTC 12.9, of whose code drivers of CUDA 12 need no more than they know, comes from PyPI
into .build/nvrtc. What it says besides resources is an error, so are spilled registers, and
registers other than Kernels/Attention.cuh has in its table. Each kernel's code is
disassembled once and must have the instructions that it is written for.
"""

import concurrent.futures
import ctypes
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.path.dirname(HERE)
CACHE = os.path.join(os.path.dirname(os.path.dirname(TARGET)), ".build", "nvrtc")
PACKAGES = ["nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia-cuda-nvdisasm==13.5.37"]
#: In the order of the table of registers; sm_120 last: with it all are there (../images.c).
ARCHITECTURES = ["sm_80", "sm_90", "sm_100", "sm_120"]
#: Of a program of its own, in which a thread begins with the registers that 384 of them leave.
WARPGROUPS, WARPGROUP_PROGRAM, WARPGROUP_REGISTERS = "sm_90a", "MLAKernels90.cu", 168
OPTIONS = ["--std=c++17"]
#: Matrix products, loads of their fragments, copies to shared memory that nobody waits for.
EXPECTED = {"mla_attend": ["HMMA.16816.F32", "LDSM.16.M88.4", "LDSM.16.MT88.4", "LDGSTS.E.BYPASS", "STG.E.128"],
            "mla_attend_tiles": ["HGMMA.64x128x16.F32", "UTMALDG.3D", "USETMAXREG.TRY_ALLOC", "STG.E.128"],
            "mla_merge": ["LDG.E.128", "STG.E.128"],
            "mla_convert": ["STG.E.64"],
            "mla_gather": ["LDG.E.128", "STG.E.128"],
            "mla_concat_keys": ["LDG.E.128", "STG.E.128"],
            "mla_project": ["HMMA.16816.F32", "LDSM.16.M88.4", "LDGSTS.E.BYPASS", "STG.E.128"]}  # fmt: skip


class Failure(Exception):
    pass


def install():
    mark = os.path.join(CACHE, "packages.txt")
    wanted = "\n".join(PACKAGES)
    if not os.path.exists(mark) or open(mark).read() != wanted:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", CACHE, *PACKAGES],
                       check=True)  # fmt: skip
        with open(mark, "w") as file:
            file.write(wanted)


def sources():
    """As the library has them, by name; the program first."""

    class Source(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("text", ctypes.c_char_p)]

    swift = os.path.dirname(os.path.realpath(subprocess.check_output(["which", "swift"], text=True).strip()))
    library = os.path.join(CACHE, "sources.so")
    subprocess.run([os.path.join(swift, "clang"), "-std=c23", "-shared", "-fPIC", "-I", os.path.join(TARGET, "include"),
                    os.path.join(TARGET, "sources.c"), "-o", library], check=True)  # fmt: skip
    function = ctypes.CDLL(library).mla_cuda_sources
    function.restype = ctypes.POINTER(Source)
    count = ctypes.c_int()
    first = function(ctypes.byref(count))
    return [(first[i].name, first[i].text) for i in range(count.value)]


def program(architecture):
    """Its files: what is no part of the library's program comes from the folder."""
    files = sources()
    if architecture != WARPGROUPS:
        return files
    folder = os.path.join(TARGET, "Kernels")
    known = [name.decode() for name, _ in files]
    names = [WARPGROUP_PROGRAM, *(name for name in sorted(os.listdir(folder)) if name.endswith(".cuh") and name not in known)]
    added = [(name.encode(), open(os.path.join(folder, name), "rb").read()) for name in names]
    return added + files[1:]


def compile(architecture, files):
    """Machine code, and what the compiler says of it."""
    folder = os.path.join(CACHE, "nvidia/cuda_nvrtc/lib")
    ctypes.CDLL(os.path.join(folder, "libnvrtc-builtins.so.12.9"), ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(os.path.join(folder, "libnvrtc.so.12"))
    strings = lambda items: (ctypes.c_char_p * len(items))(*items)  # noqa: E731
    program = ctypes.c_void_p()
    (name, text), headers = files[0], files[1:]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, name, len(headers), strings([t for _, t in headers]),
                             strings([n for n, _ in headers]))  # fmt: skip
    options = [*OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
    status = nvrtc.nvrtcCompileProgram(program, len(options), strings([o.encode() for o in options]))

    def result(of):
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{of}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{of}")(program, buffer)
        return buffer.raw

    log = result("ProgramLog").rstrip(b"\0").decode()
    if status:
        raise Failure(f"NVRTC says {status}:\n{log}")
    return result("CUBIN"), log


def resources(log):
    """By kernel: registers, bytes of stack, bytes spilled."""
    kernels, name = {}, None
    for line in filter(str.strip, log.splitlines()):
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            name = entry[1]
        elif stack := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            stack_bytes, spilled = int(stack[1]), int(stack[2])
        elif used := re.search(r"Used (\d+) registers", line):
            kernels[name] = int(used[1]), stack_bytes, spilled
        elif not re.match(r"ptxas info +: (Function properties|Compile time|\d+ bytes gmem)", line):
            raise Failure(f"the compiler says: {line}")
    return kernels


def table():
    """Registers as Attention.cuh has them, a number for each architecture: {"192_128": [...]}."""
    with open(os.path.join(TARGET, "Kernels", "Attention.cuh")) as file:
        rows = re.findall(r"^ \* +(\d+)/(\d+)((?: +\d+)+)$", file.read(), re.MULTILINE)
    return {f"{qk}_{v}": [int(number) for number in numbers.split()] for qk, v, numbers in rows}


def check_resources(architecture, kernels):
    wrong, expected = [], table() if architecture in ARCHITECTURES else {}
    for name, (registers, stack, spilled) in sorted(kernels.items()):
        print(f"{architecture} {name}: {registers} registers, {spilled} bytes spilled, {stack} bytes of stack")
        if spilled or stack:
            wrong.append(f"{name} spills {spilled} bytes and has a stack of {stack}")
        if architecture == WARPGROUPS and registers != WARPGROUP_REGISTERS:
            wrong.append(f"{name} begins with {registers} registers, not {WARPGROUP_REGISTERS}")
    for dimensions, listed in expected.items():
        registers = max(kernels[f"mla_attend_{dtype}_{dimensions}"][0] for dtype in ("bf16", "fp16"))
        if registers != listed[ARCHITECTURES.index(architecture)]:
            wrong.append(f"{dimensions} has {registers} registers, in the table of Attention.cuh "
                         f"{listed[ARCHITECTURES.index(architecture)]}")  # fmt: skip
    return wrong


def check_instructions(architecture, path, names):
    text = subprocess.run([os.path.join(CACHE, "nvidia/cu13/bin/nvdisasm"), "--print-code", path], check=True,
                          capture_output=True, text=True).stdout  # fmt: skip
    code = dict(re.findall(r"^\.text\.(\w+):\n(.*?)(?=^\.text\.|\Z)", text, re.MULTILINE | re.DOTALL))
    expected = {name: EXPECTED[max(kinds, key=len)] for name in names
                if (kinds := [kind for kind in EXPECTED if name.startswith(kind)])}  # fmt: skip
    return [f"{name} has no {instruction}" for name, instructions in expected.items()
            for instruction in instructions if instruction not in code.get(name, "")]  # fmt: skip


def make(architecture, files):
    code, log = compile(architecture, files)
    path = os.path.join(CACHE, architecture + ".cubin")
    with open(path, "wb") as file:
        file.write(code)
    kernels = resources(log)
    wrong = check_resources(architecture, kernels) + check_instructions(architecture, path, kernels)
    return [f"{architecture}: {text}" for text in wrong], len(code)


def main(architectures):
    install()
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        results = list(pool.map(make, architectures, [program(each) for each in architectures]))
    wrong = [text for each, _ in results for text in each]
    for text in wrong:
        print(f"not ok {text}")
    if wrong:
        return 1
    for architecture, (_, size) in zip(architectures, results):
        print(f"ok {architecture}: {size} bytes, no spills, registers and instructions as expected")
    if set(ARCHITECTURES) <= set(architectures):
        for architecture in ARCHITECTURES:
            os.replace(os.path.join(CACHE, architecture + ".cubin"), os.path.join(HERE, architecture + ".cubin"))
        # Compiled without them, maybe: nothing else tells the build that they are there now.
        os.utime(os.path.join(TARGET, "images.c"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:] or [*ARCHITECTURES, WARPGROUPS]))
    except Failure as failure:
        sys.exit(f"not ok {failure}")
