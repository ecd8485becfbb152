"""The gate on the ABI sees every kind of break, and lets pass what programs do not notice.

    abi_test.py HEADER STAGE    STAGE has the installed library

A program that was linked before symbols had versions runs with the library that has them.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile

import abi

BREAKS = {
    "a field is moved": ("  int32_t ndim;\n  uint32_t reserved;\n", "  uint32_t reserved;\n  int32_t ndim;\n"),
    "a field is removed": ("  int64_t prefill_tokens_with_context;\n", ""),
    "a field is put between others": ("  int32_t ndim;\n", "  int32_t ndim;\n  uint32_t order;\n"),
    "a field has another name": ("  int32_t ndim;\n", "  int32_t rank;\n"),
    "a field has another type": ("  int32_t ndim;\n", "  uint32_t ndim;\n"),
    "an array has another length": ("#define MLA_MAX_NDIM 4\n", "#define MLA_MAX_NDIM 5\n"),
    "an alignment is another": ("  void *stream;\n} mla_merge_args;", "  void *stream __attribute__((aligned(16)));\n} mla_merge_args;"),
    "a constant is another": ("  MLA_DEVICE_ROCM = 10,\n", "  MLA_DEVICE_ROCM = 12,\n"),
    "a constant before it moves it": ("  MLA_OK = 0,\n", "  MLA_NOTHING = 0, MLA_OK,\n"),
    "a constant is gone": (",\n  MLA_DEVICE_ROCM_HOST = 11\n", "\n"),
    "a default is another": ("{sizeof(mla_tensor), MLA_DTYPE_NONE, NULL, MLA_DEVICE_CPU,", "{sizeof(mla_tensor), MLA_DTYPE_NONE, NULL, MLA_DEVICE_CUDA,"),
    "an initialiser is gone": ("#define MLA_MERGE_ARGS_INIT ", "#define MERGE_ARGS_INIT "),
    "a function is gone": ("mla_status mla_trim(int64_t *bytes);", ""),
    "a parameter has another type": ("mla_status mla_trim(int64_t *bytes);", "mla_status mla_trim(int32_t *bytes);"),
    "a result has another type": ("mla_status mla_trim(int64_t *bytes);", "int64_t mla_trim(int64_t *bytes);"),
    "a type is another": ("typedef int32_t mla_status;", "typedef int64_t mla_status;"),
}  # fmt: skip
ADDITIONS = {
    "a field at the end": ("  void *stream;\n} mla_merge_args;", "  void *stream;\n  int64_t more;\n} mla_merge_args;"),
    "its default": ("NULL, NULL, NULL, -1, NULL, NULL}", "NULL, NULL, NULL, -1, NULL, NULL, 0}"),
    "a constant": (",\n  MLA_DEVICE_ROCM_HOST = 11\n", ",\n  MLA_DEVICE_ROCM_HOST = 11,\n  MLA_DEVICE_OTHER = 12\n"),
    "a function": ("mla_status mla_trim(int64_t *bytes);", "mla_status mla_trim(int64_t *bytes);\nvoid mla_new(void);"),
}
NEXT_ABI = ("#define MLA_ABI_VERSION 1\n", "#define MLA_ABI_VERSION 2\n")
failures = 0


def report(name, good, text=""):
    global failures
    failures += not good
    print(f"ok {name}" if good else f"not ok {name}: {text}")


def changed(folder, header, *changes):
    """A header with these changes, each of which applies once."""
    with open(header) as file:
        text = file.read()
    for old, new in changes:
        if text.count(old) != 1:
            report(f"a change applies: {old!r}", False, f"{text.count(old)} times")
        text = text.replace(old, new)
    path = os.path.join(folder, "mla_prefill.h")
    with open(path, "w") as file:
        file.write(text)
    return path


def is_recorded(folder, header):
    """Whether a record made before takes the header; whether it has then changed."""
    copy = shutil.copy(abi.RECORD, folder)
    with contextlib.redirect_stderr(io.StringIO()):
        refused = abi.record(header, copy)
    return not refused, abi.read(copy) != abi.read(abi.RECORD)


def headers(folder, header):
    _, old = abi.read(abi.RECORD)
    for name, change in BREAKS.items():
        path = changed(folder, header, change)
        report(f"a break is found: {name}", abi.breaks(old, abi.abi(path)), "not found")
        report(f"nor recorded: {name}", is_recorded(folder, path) == (False, False), "recorded")
    path = changed(folder, header, BREAKS["a field is removed"], NEXT_ABI)
    report("another ABI may be another", is_recorded(folder, path) == (True, True), "refused")
    path = changed(folder, header, *ADDITIONS.values())
    new = abi.abi(path)
    report("additions break nothing", not abi.breaks(old, new), abi.breaks(old, new))
    report("the record lacks additions", len(new.keys() - old.keys()) == 3, new.keys() - old.keys())
    report("and then has them", is_recorded(folder, path) == (True, True), "refused")
    padded = {"struct s": "16 bytes, aligned to 8", "field s.struct_size": "0 uint32_t", "field s.data": "4 char[5]"}
    report("what was padding is no place for a field",
           abi.breaks(padded, padded | {"field s.new": "12 int32_t"}), "not found")  # fmt: skip


def stub(folder, names, node=None):
    """A library with these functions and nothing in them."""
    library, script = os.path.join(folder, "libmlaprefill.so.1"), os.path.join(folder, "stub.map")
    with open(script, "w") as file:
        file.write(f"{node} {{ global: mla_*; }};")
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library, "-Wl,-soname,libmlaprefill.so.1"]
                   + ([f"-Wl,--version-script={script}"] if node else []),
                   input="".join(f"void {name}(void) {{}}\n" for name in names), text=True, check=True)  # fmt: skip
    return library


def libraries(folder, stage):
    _, old = abi.read(abi.RECORD)
    names = [key.split()[1] for key in old if key.startswith("function ")]
    find = lambda *arguments: abi.not_exported(stub(folder, *arguments), old)
    report("a library with all of it passes", not find(names, "MLA_1"), find(names, "MLA_1"))
    report("a symbol that is gone is found", find(names[1:], "MLA_1") == [f"{names[0]}@@MLA_1"], "not found")
    report("a symbol too many is found", find([*names, "mla_new"], "MLA_1") == ["mla_new@@MLA_1"], "not found")
    report("another version is found", len(find(names, "MLA_2")) == 2 * len(names), "not found")
    report("no version is found", len(find(names)) == 2 * len(names), "not found")

    program = os.path.join(folder, "attention")
    subprocess.run(["gcc", "-std=c99", f"-I{stage}/include", "examples/c/attention.c", stub(folder, names), "-lm", "-o", program],
                   check=True)  # fmt: skip
    run = subprocess.run([program], env={"LD_LIBRARY_PATH": f"{stage}/lib", "LD_BIND_NOW": "1"}, capture_output=True, text=True)
    report("a program of before there were versions runs", (run.returncode, run.stderr) == (0, ""), run.stderr)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        headers(scratch, sys.argv[1])
        libraries(scratch, sys.argv[2])
    sys.exit(failures > 0)
