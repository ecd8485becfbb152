"""Compiles and runs the samples of the README files and the documentation's pages, and looks for the
tests that they name, the messages that they quote and the files that these and all other documents
link to.

    readme.py PREFIX         against an installed library
    readme.py --extension    those in Python that need the extension, with this Python

A sample is a fenced block of C, C++ or Python; a test `test_x`, a function, or `test_x.py`; a quoted
message a heading of code, in which "\u2026" stands for what differs.
"""

import ast
import glob
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STRICT = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
#: Of the documentation, and whose samples are executed.
PAGES = sorted(glob.glob("Sources/Documentation/pages/**/*.md", root_dir=ROOT, recursive=True))
WITH_SAMPLES = ("README.md", "python/README.md", *PAGES)
#: What a page brings in from a file that is built and run by itself.
SNIPPET = re.compile(r'^--8<-- "([^":]+)', re.M)
COMPILERS = {
    "c": (["gcc", "-std=c99"], "c"),
    "cpp": (["g++", "-std=c++17"], "cpp"),
}


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def samples():
    """(name, language, text) of each."""
    for path in WITH_SAMPLES:
        blocks = re.findall(r"^```(c|cpp|python)\n(.*?)^```$", read(path), re.M | re.S)
        for number, (language, text) in enumerate(blocks, 1):
            if not SNIPPET.match(text):
                yield f"{path} sample {number} ({language})", language, text


def command(language, source, prefix, folder):
    """Builds what must be built and returns how to run it."""
    if language == "python":
        return [sys.executable, source]
    compiler, _ = COMPILERS[language]
    program = os.path.join(folder, "sample")
    library = os.path.join(prefix, "lib")
    subprocess.run(
        [*compiler, *STRICT, f"-I{prefix}/include", source, "-o", program, f"-L{library}",
         f"-Wl,-rpath,{library}", "-lmlaprefill"], check=True)
    return [program]


def run(name, language, text, prefix):
    with tempfile.TemporaryDirectory() as folder:
        suffix = "py" if language == "python" else COMPILERS[language][1]
        source = os.path.join(folder, f"sample.{suffix}")
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        try:
            environment = dict(os.environ, LD_LIBRARY_PATH=os.path.join(prefix, "lib"))
            subprocess.run(
                command(language, source, prefix, folder), check=True, env=environment, timeout=120)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"not ok {name}: {error}")
            return False
    print(f"ok {name}")
    return True


def lost_tests():
    """(path, name) of each that is named and not there."""
    there = set()
    for path in glob.glob(os.path.join(ROOT, "Tests", "*", "test_*.py")):
        there.add(os.path.basename(path))
        with open(path, encoding="utf-8") as file:
            there.update(re.findall(r"^def (test_\w+)\(", file.read(), re.M))
    for path in (*WITH_SAMPLES, *glob.glob("python/docs/*.md", root_dir=ROOT)):
        named = set(re.findall(r"`(test_\w+(?:\.py)?)`", read(path)))
        yield from ((path, name) for name in sorted(named - there))


def lost_files():
    """(path, link) of each link to a file that is not there."""
    documents = [path for pattern in ("*.md", "Sources/*.md", "python/*.md", "python/docs/*.md")
                 for path in sorted(glob.glob(pattern, root_dir=ROOT))]
    for path in documents + PAGES:
        text = read(path)
        folder = os.path.dirname(os.path.join(ROOT, path))
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in link and not os.path.exists(os.path.join(folder, link)):
                yield path, link
        yield from ((path, name) for name in SNIPPET.findall(text) if not os.path.exists(os.path.join(ROOT, name)))


def lost_messages():
    """Each that the library does not have, of those that troubleshooting is about."""
    sources = (glob.glob(f"Sources/{folder}/**/*.swift", root_dir=ROOT, recursive=True) for folder in ("MLACore", "MLAPrefill"))
    text = "\n".join(read(path) for paths in sources for path in paths)
    # A message that goes over lines is one.
    text = re.sub(r'"\s*\+\s*"', "", text)
    page = read("Sources/Documentation/pages/guides/troubleshooting.md")
    for heading in re.findall(r"^### (.*`.*)$", page, re.M):
        for message in re.findall(r"`([^`]+)`", heading):
            if not all(part.strip() in text for part in message.split("\u2026")):
                yield message


def lost_names():
    """(path, name) of each of the Python package that its reference does not have, and of each
    entry that has lines, which their description does not have."""
    package = ast.parse(read("python/src/mla_prefill/__init__.py"))
    names = next(ast.literal_eval(node.value) for node in package.body
                 if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    pages = "\n".join(read(path) for path in PAGES if "/reference/python/" in path)
    for name in names:
        if not re.search(rf"^::: mla_prefill\.{name}$", pages, re.M):
            yield "Sources/Documentation/pages/reference/python", name
    lines = "Sources/Documentation/pages/guides/verbose.md"
    described = re.search(r"^\| 3 \| ENTRY .*", read(lines), re.M)[0]
    for name in re.findall(r'case \.\w+: "(mla_\w+)"', read("Sources/MLACore/Runtime/Calls.swift")):
        if f"`{name}`" not in described:
            yield lines, name


def main():
    wants_extension = "--extension" in sys.argv
    prefix = "" if wants_extension else os.path.abspath(sys.argv[1])
    results = [
        run(name, language, text, prefix)
        for name, language, text in samples()
        if bool(re.search(r"^(import|from) mla_prefill", text, re.M)) == wants_extension
    ]
    if not results:
        print("not ok README.md: has no samples")
    lost = list(lost_tests())
    for path, name in lost:
        print(f"not ok {path}: names {name}, which is no test")
    lost_links = list(lost_files())
    for path, link in lost_links:
        print(f"not ok {path}: links to {link}, which is not there")
    messages = list(lost_messages())
    for message in messages:
        print(f"not ok troubleshooting.md: the library does not say {message}")
    names = list(lost_names())
    for path, name in names:
        print(f"not ok {path}: lacks {name}")
    return 0 if results and all(results) and not (lost or lost_links or messages or names) else 1


if __name__ == "__main__":
    sys.exit(main())
