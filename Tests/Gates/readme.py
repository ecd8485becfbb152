"""Compiles and runs the samples of the README files, and looks for the tests that they name and
the files that these and all other documents link to.

    readme.py PREFIX         against an installed library
    readme.py --extension    those in Python that need the extension, with this Python

A sample is a fenced block of C, C++ or Python; a test `test_x`, a function, or `test_x.py`.
"""

import glob
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STRICT = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
COMPILERS = {
    "c": (["gcc", "-std=c99"], "c"),
    "cpp": (["g++", "-std=c++17"], "cpp"),
}


def samples():
    """(name, language, text) of each."""
    for path in ("README.md", "python/README.md"):
        with open(os.path.join(ROOT, path), encoding="utf-8") as readme:
            blocks = re.findall(r"^```(c|cpp|python)\n(.*?)^```$", readme.read(), re.M | re.S)
        for number, (language, text) in enumerate(blocks, 1):
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
    for path in ("README.md", "python/README.md", *glob.glob("python/docs/*.md", root_dir=ROOT)):
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            named = set(re.findall(r"`(test_\w+(?:\.py)?)`", file.read()))
        yield from ((path, name) for name in sorted(named - there))


def lost_files():
    """(path, link) of each link to a file that is not there."""
    for pattern in ("*.md", "Sources/*.md", "python/*.md", "python/docs/*.md"):
        for path in sorted(glob.glob(pattern, root_dir=ROOT)):
            with open(os.path.join(ROOT, path), encoding="utf-8") as file:
                links = re.findall(r"\]\(([^)#\s]+)", file.read())
            folder = os.path.dirname(os.path.join(ROOT, path))
            for link in links:
                if "://" not in link and not os.path.exists(os.path.join(folder, link)):
                    yield path, link


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
    return 0 if results and all(results) and not lost and not lost_links else 1


if __name__ == "__main__":
    sys.exit(main())
