"""Gate on the ABI: what a compiled program relies on stays as Tests/Gates/abi.txt has it.

    abi.py check HEADER LIBRARY.so    fails where the header breaks the record, has what the
                                      record lacks, or the library lacks a symbol of it
    abi.py record HEADER              `make abi-record`: records what the header adds; refuses
                                      what breaks the ABI, until MLA_ABI_VERSION is another

Clang tells what it makes of the header, for each architecture. An ABI only grows: structs at
their end, constants and functions by new names.
"""

import json
import os
import re
import subprocess
import sys

RECORD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "abi.txt")
TARGETS = "x86_64-linux-gnu", "aarch64-linux-gnu"
# What releases change at will.
FREE = re.compile(r"MLA_VERSION_\w+")
HEAD = "# What programs that were compiled against this ABI rely on; written by `make abi-record`.\n"


def clang(header, target, *arguments):
    command = ["clang", f"--target={target}", "-ffreestanding", "-x", "c", "-std=c99", *arguments, header]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def layouts(header, target):
    """Of each struct its size, its alignment and its fields' offsets, in bytes."""
    text = clang(header, target, "-fsyntax-only", "-Xclang", "-fdump-record-layouts-complete",
                 "-Xclang", "-fdump-record-layouts-simple")
    found = re.findall(r"Type: struct (mla_\w+)\n.*?Size:(\d+).*?Alignment:(\d+)\n\s*FieldOffsets: \[(.*?)\]", text, re.S)
    return {name: (int(size) // 8, int(align) // 8, [int(bit) / 8 for bit in bits.split(",")])
            for name, size, align, bits in found}


def macros(header, target):
    text = clang(header, target, "-dM", "-E")
    found = re.findall(r"^#define (MLA_\w+(?:\([^)]*\))?) (.+)$", text, re.M)
    return {name: value for name, value in found if not FREE.fullmatch(name)}


def enumerators(declaration):
    value = -1
    for constant in declaration["inner"]:
        if constant["kind"] == "EnumConstantDecl":
            said = [inner["value"] for inner in constant.get("inner", []) if inner["kind"] == "ConstantExpr"]
            value = int(said[0]) if said else value + 1
            yield constant["name"], value


def abi(header, target=TARGETS[0]):
    """The header as the record has it: lines by what they are about, in the header's order."""
    structs, lines = layouts(header, target), {}
    for name, value in sorted(macros(header, target).items()):
        lines[f"{'initialiser' if value.startswith('{') else 'constant'} {name}"] = value
    for declaration in json.loads(clang(header, target, "-fsyntax-only", "-Xclang", "-ast-dump=json"))["inner"]:
        kind, name = declaration["kind"], declaration.get("name", "")
        if kind == "EnumDecl":
            lines |= {f"constant {each}": str(value) for each, value in enumerators(declaration)}
        elif not name.startswith("mla_"):
            continue
        elif kind == "FunctionDecl":
            lines[f"function {name}"] = declaration["type"]["qualType"]
        elif kind == "TypedefDecl" and name not in structs:
            lines[f"type {name}"] = declaration["type"]["qualType"]
        elif kind == "RecordDecl" and declaration.get("completeDefinition"):
            size, alignment, offsets = structs[name]
            fields = [field for field in declaration["inner"] if field["kind"] == "FieldDecl"]
            lines[f"struct {name}"] = f"{size} bytes, aligned to {alignment}"
            for field, offset in zip(fields, offsets, strict=True):
                lines[f"field {name}.{field['name']}"] = f"{offset:g} {field['type']['qualType']}"
    return lines


def read(file):
    """The record's ABI version and lines."""
    with open(file) as text:
        lines = dict(line.rstrip("\n").split(" = ", 1) for line in text if not line.startswith("#"))
    return lines["constant MLA_ABI_VERSION"], lines


def has_grown(old, new):
    """Whether an initialiser begins as it did: the rest is for what a struct has at its end."""
    return new.startswith(old.removesuffix("}"))


def struct_breaks(name, old, new):
    """What is wrong with how a recorded struct has grown."""
    size, new_size = (int(lines[f"struct {name}"].split()[0]) for lines in (old, new))
    alignment, new_alignment = (lines[f"struct {name}"].split()[-1] for lines in (old, new))
    if new_size < size or new_alignment != alignment:
        yield f"struct {name} was {old[f'struct {name}']}, is {new[f'struct {name}']}"
    prefix = f"field {name}."
    added = [key for key in new if key.startswith(prefix) and key not in old]
    if (added or new_size > size) and f"{prefix}struct_size" not in old:
        yield f"struct {name} has no struct_size: cannot grow"
    for key in added:
        if float(new[key].split()[0]) < size:
            yield f"{key} is at {new[key].split()[0]}, within the {size} bytes that programs have"


def breaks(old, new):
    """Whatever of the record the header does not keep."""
    found = []
    for key, value in old.items():
        kind, name = key.split(" ", 1)
        if key not in new:
            found.append(f"{key} is gone")
        elif kind == "struct":
            found += struct_breaks(name, old, new)
        elif new[key] != value and not (kind == "initialiser" and has_grown(value, new[key])):
            found.append(f"{key} was {value}, is {new[key]}")
    return found


def not_exported(library, old):
    """Recorded functions that the library does not have under its ABI's version, and others there."""
    text = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    node = f"MLA_{old['constant MLA_ABI_VERSION']}"
    wanted = {f"{key.split()[1]}@@{node}" for key in old if key.startswith("function ")}
    return sorted(wanted ^ {row.split()[-1] for row in text.splitlines() if row.split()[1] in "TBDRVW"})


def check(header, library):
    failures = 0

    def gate(name, broken):
        nonlocal failures
        failures += bool(broken)
        print(f"not ok {name}: {'; '.join(broken)}" if broken else f"ok {name}")

    (version, old), new = read(RECORD), abi(header)
    gate(f"what ABI {version} promises is kept", breaks(old, new))
    gate("the record has all of the header (make abi-record)", [key for key in new if old.get(key) != new[key]])
    gate("is the same on both architectures", [key for key, value in abi(header, TARGETS[1]).items() if new.get(key) != value])
    gate(f"symbols have the version MLA_{version}", not_exported(library, old))
    return failures > 0


def record(header, file=RECORD):
    new = abi(header)
    version, old = read(file)
    broken = breaks(old, new) if version == new["constant MLA_ABI_VERSION"] else []
    if broken:
        print(*broken, sep="\n", file=sys.stderr)
        print(f"breaks ABI {version}: another MLA_ABI_VERSION is for that", file=sys.stderr)
        return True
    with open(file, "w") as text:
        text.write(HEAD + "".join(f"{key} = {value}\n" for key, value in new.items()))
    return False


if __name__ == "__main__":
    sys.exit({"check": check, "record": record}[sys.argv[1]](*sys.argv[2:]))
