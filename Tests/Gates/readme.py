"""Compiles and runs the samples of README.md against an installed library.

    readme.py PREFIX

A sample is a fenced block of C, C++ or Python. A Python block that needs the
extension is left to the tests of the extension, which pass --extension.
"""

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
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as readme:
        return re.findall(r"^```(c|cpp|python)\n(.*?)^```$", readme.read(), re.M | re.S)


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


def run(number, language, text, prefix):
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
            print(f"not ok readme sample {number} ({language}): {error}")
            return False
    print(f"ok readme sample {number} ({language})")
    return True


def main():
    wants_extension = "--extension" in sys.argv
    prefix = os.path.abspath([a for a in sys.argv[1:] if not a.startswith("--")][0])
    results = [
        run(number, language, text, prefix)
        for number, (language, text) in enumerate(samples(), 1)
        if ("import mla_prefill" in text) == wants_extension
    ]
    if not results:
        print("not ok README.md has no samples")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
