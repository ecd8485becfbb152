"""A copy of the checkout to plant faults in, and what is built of it."""

import filecmp
import hashlib
import os
import re
import shutil
import subprocess

from objects import KERNELS, KERNELS_HEADER, Objects

#: Behind the copy's Package.swift: the core and the tests are compiled file by file, so that
#: a fault costs seconds. What no test needs is left out.
MANIFEST = """
package.targets.removeAll { ["mla-bench", "mla-demo", "MLABenchSupport"].contains($0.name) }
for target in package.targets where ["MLACore", "MLAPrefill"].contains(target.name) || target.type == .test {
  target.swiftSettings = (target.swiftSettings ?? []) + [.unsafeFlags(["-no-whole-module-optimization", "-incremental", "-enable-batch-mode"])]
}
"""
#: What is of one kind of suites alone.
FOLDERS = {"abi": "Tests/ABI/", "python": "Tests/Python/", "vllm": "Tests/vLLM/",
           "transformers": "Tests/Transformers/", "ggml": "Tests/GGML/", "gpu": "Tests/GPU/",
           "arm64": "Tests/Arm64/"}
BUILD = "swift build -c release -Xswiftc -enable-testing --scratch-path".split()
MODELLED = {"MLA_MODELLED_INSTRUCTIONS": "1"}
#: What is handed to SwiftPM, and how the names of the commands that link it end.
LIBRARY, TESTS = (["--product", "mlaprefill"], ".dylib"), (["--build-tests"], ".test")
#: Files whose objects nothing else sees into: these alone are made again.
ALONE = re.compile(rf"{KERNELS_HEADER}|Sources/(MLAKernels|SharedKernels|.*\.c$)")


class BuildError(Exception):
    """What a compiler said."""


class Workplace:
    """Builds are kept from one fault to the next; each is made when a suite needs it."""

    def __init__(self, root, scratch, python, ggml):
        self.root = root
        self.scratch = os.path.realpath(scratch)
        self.tree = os.path.join(self.scratch, "tree")
        #: Where the Python package is put together.
        self.site = os.path.join(self.scratch, "site")
        self.python = python
        self.llama = ggml
        self.files = []
        #: By folder that is built and has no fault, what it is made of.
        self.objects = {}
        self.planted = None
        #: What is built of the copy as it is.
        self.fresh = set()
        foreign = r"MLA_.*|PYTHON.*|CC|CXX|C(XX)?FLAGS|LDFLAGS|MAKEFLAGS|MFLAGS|SWIFT_.*"
        self.environment = {name: value for name, value in os.environ.items() if not re.fullmatch(foreign, name)}
        # Of Swift's own crash reporter: tests expect plain exits.
        self.environment["SWIFT_BACKTRACE"] = "enable=no"
        stage = os.path.join(self.tree, ".build/stage")
        for folder in (".build/stage/lib", ".build/release", ".build/abi"):
            os.makedirs(os.path.join(self.tree, folder), exist_ok=True)
        if not os.path.islink(os.path.join(stage, "include")):
            os.symlink("../../include", os.path.join(stage, "include"))

    def refresh(self):
        """Makes it the checkout as it is; what has not changed stays as old as it was."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=self.root, check=True, capture_output=True, text=True).stdout
        names = {name for name in listed.split("\0") if name and os.path.lexists(os.path.join(self.root, name))}
        known = os.path.join(self.scratch, "files")
        if os.path.exists(known):
            with open(known, encoding="utf-8") as file:
                for name in set(file.read().splitlines()) - names:
                    _remove(os.path.join(self.tree, name))
        for name in names - {"Package.swift"}:
            source, copy = os.path.join(self.root, name), os.path.join(self.tree, name)
            if not _same(source, copy):
                os.makedirs(os.path.dirname(copy), exist_ok=True)
                _remove(copy)
                shutil.copy(source, copy, follow_symlinks=False)
        with open(os.path.join(self.root, "Package.swift"), encoding="utf-8") as file:
            manifest = file.read() + MANIFEST
        if _text(os.path.join(self.tree, "Package.swift")) != manifest:
            self.write("Package.swift", manifest)
        with open(known, "w", encoding="utf-8") as file:
            file.write("\n".join(sorted(names)))
        self.fresh.clear()
        self.objects.clear()
        self.has_nodes = False
        self.files = sorted(names)

    def state(self, kind):
        """Of what suites of a kind are made of, as it is now."""
        others = ["Tests/Mutants/", *(folder for each, folder in FOLDERS.items() if each != kind)]
        state = hashlib.sha256()
        for name in self.files:
            copy = os.path.join(self.tree, name)
            if not name.startswith(tuple(others)):
                state.update(f"{name}\0{os.readlink(copy) if os.path.islink(copy) else _text(copy)}\0".encode())
        return state.hexdigest()[:12]

    def families(self, path):
        """The modules of kernels that a file is part of, those first that take the least time."""
        if path == KERNELS_HEADER:
            return [*KERNELS]
        source = os.path.join(self.tree, path)
        return [module for module in KERNELS if any(
            os.path.realpath(os.path.join(folder, name)) == source
            for folder, _, names in os.walk(os.path.join(self.tree, "Sources", module), followlinks=True)
            for name in names)]

    def plant(self, path, text):
        """Puts a faulty text in the place of a file's, until mend()."""
        file = os.path.join(self.tree, path)
        self.planted, self.faulty, self.sound, self.time = path, text, _text(file), os.stat(file).st_mtime_ns
        self.write(path, text)

    def mend(self):
        for objects in self.objects.values():
            objects.mend()
        self.write(self.planted, self.sound)
        if self.stands_alone():
            self._date_back()
        else:
            self.objects.clear()
        self.planted = None

    def stands_alone(self):
        """Whether the fault is compiled into objects of its own, and nothing else again."""
        return self.planted is not None and ALONE.match(self.planted) is not None

    def write(self, path, text):
        with open(os.path.join(self.tree, path), "w", encoding="utf-8") as file:
            file.write(text)
        self.fresh.clear()

    def _date_back(self):
        """SwiftPM is to find the file that it has built."""
        os.utime(os.path.join(self.tree, self.planted), ns=(self.time, self.time))

    # --- What is built ---

    def library(self, modules=None):
        """With a fault in kernels it is in those of the modules alone."""
        built, lib = ".build-mutants/release/libmlaprefill.so", ".build/stage/lib"
        self._make(f"library {modules}", [
            *self._built(".build-mutants", LIBRARY, modules),
            ["cp", built, f"{lib}/libmlaprefill.so.1"],
            ["ln", "-sf", "libmlaprefill.so.1", f"{lib}/libmlaprefill.so"],
            # Where the Python package looks for it.
            ["cp", built, ".build/release/libmlaprefill.so"],
        ])
        return lib

    def abi(self, program):
        if not os.path.exists(f"{self.tree}/.build/stage/lib/libmlaprefill.so"):
            self.library()
        path = f"{self.tree}/.build/abi/{program}"
        self._make(f"abi {program}", [
            ["make", "-s", "-C", "Tests/ABI", f"STAGE={self.tree}/.build/stage", f"OUT={os.path.dirname(path)}", path]])
        return path

    def ggml(self):
        """What tests ggml's backend in the llama.cpp at hand."""
        if self.llama is None:
            raise BuildError("there is no llama.cpp: --ggml")
        out, source, libraries = f"{self.tree}/.build/ggml", f"{self.llama}/ggml", f"{self.llama}/build/bin"
        self._make("ggml", [
            ["make", "-s", "-C", "Sources/GGMLBackend", f"GGML={self.llama}", f"STAGE={self.tree}/.build/stage", f"OUT={out}"]])
        # No fault is in it.
        if not self.has_nodes:
            self._make("nodes", [
                ["g++", "-std=c++17", "-O2", "-isystem", f"{source}/include", "Tests/GGML/nodes.cpp", "Tests/GGML/backend.cpp",
                 "Tests/GGML/problem.cpp", "-o", f"{out}/nodes", f"-L{libraries}", "-lggml", "-lggml-base",
                 f"-Wl,-rpath,{libraries}", "-pthread"]])
            self.has_nodes = True
        # Twenty problems of a kind.
        return [f"{out}/nodes", f"{out}/libggml-mla.so", "20"]

    def swift_tests(self, modules=None):
        self._make(f"tests {modules}", self._built(".build-mutants", TESTS, modules))
        return ".build-mutants/release/MLAPrefillPackageTests.xctest"

    def model(self):
        """The tests and the library with modelled instructions."""
        release = ".build-tables/release"
        self._make("model", [
            *self._built(".build-tables", TESTS, None, **MODELLED),
            *self._built(".build-tables", LIBRARY, None, **MODELLED),
            # By the name that programs ask for.
            ["cp", f"{release}/libmlaprefill.so", f"{release}/libmlaprefill.so.1"],
        ], **MODELLED)
        return release

    def package(self, modules=None):
        """The Python package: the extension, its library, the Python files."""
        self.library(modules)
        nanobind = [self.python, "-m", "nanobind", "--cmake_dir"]
        found = subprocess.run(nanobind, capture_output=True, text=True, check=True).stdout.strip()
        out = f"{self.scratch}/extension"
        self._make(f"package {modules}", [
            # The library is there: what CMake would build it with does nothing.
            ["cmake", "-S", "python", "-B", out, "-DSWIFT=/bin/true", f"-Dnanobind_DIR={found}",
             "-DCMAKE_BUILD_TYPE=Release", f"-DPython_EXECUTABLE={self.python}", "-DSTRIP=STRIP-NOTFOUND"],
            ["cmake", "--build", out, "--parallel"],
            ["cmake", "--install", out, "--prefix", self.site],
            ["cp", "-r", "python/src/mla_prefill", self.site],
        ])
        return self.site

    def _built(self, folder, product, modules, **variables):
        """Commands that build a product."""
        target, suffix = product
        if not self.stands_alone():
            return [[*BUILD, folder, *target]]
        objects = self._objects(folder, **variables)
        return [*objects.compile(self.planted, modules), objects.link(suffix)]

    def _objects(self, folder, **variables):
        """Those of a folder that was built without a fault."""
        if folder not in self.objects:
            self.write(self.planted, self.sound)
            self._date_back()
            self._make(folder, [[*BUILD, folder, *TESTS[0]]], **variables)
            self.write(self.planted, self.faulty)
            self.objects[folder] = Objects(self.tree, folder)
        return self.objects[folder]

    def _make(self, name, commands, **variables):
        if name in self.fresh:
            return
        for command in commands:
            run = subprocess.run(
                command, cwd=self.tree, env=self.environment | variables, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
            if run.returncode != 0:
                lines = run.stdout.splitlines()
                errors = [line for line in lines if re.search(r"\berror\b", line, re.I)]
                raise BuildError((errors or lines[-1:] or ["?"])[0].strip())
        self.fresh.add(name)


def _remove(path):
    if os.path.lexists(path):
        os.remove(path)


def _text(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _same(source, copy):
    if os.path.islink(source):
        return os.path.islink(copy) and os.readlink(copy) == os.readlink(source)
    return os.path.isfile(copy) and not os.path.islink(copy) and filecmp.cmp(source, copy, shallow=False)
