"""The Python package's source distribution, as who has no checkout gets it.

    source_distribution.py FOLDER          the one in FOLDER: what is in it
    source_distribution.py FOLDER wheel    and the wheel there that was built from it: what is in
                                           that, and whether it works on its own

Run in the project's folder, by a Python with nanobind beside it.
"""

import email.parser
import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from importlib.metadata import distribution

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
#: All of these are in it.
WANTED = ("Sources", "include", "python", "Tests/BenchInstructions", "Package.swift", "LICENSE")
LICENSES = ("LICENSE", "licenses/nanobind.txt", "licenses/robin_map.txt", "licenses/swift-runtime.txt")
failed = False


def check(name, wrong):
    """`wrong`: what is wrong, an empty list or text where nothing is."""
    global failed
    print(f"not ok {name}: {wrong}" if wrong else f"ok {name}", flush=True)
    failed = failed or bool(wrong)


def read(*path):
    with open(os.path.join(ROOT, *path), "rb") as file:
        return file.read()


def version():
    header = read("include", "mla_prefill.h").decode()
    return ".".join(re.search(rf"MLA_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH"))


def check_metadata(name, text):
    """Of a distribution: one version, all licences, no address of a project."""
    found = email.parser.BytesParser().parsebytes(text)
    check(f"{name}: version {version()}", "" if found["Version"] == version() else found["Version"])
    check(f"{name}: licences", sorted(set(LICENSES) ^ set(found.get_all("License-File", []))))
    check(f"{name}: Apache-2.0", "" if found["License-Expression"] == "Apache-2.0" else found["License-Expression"])
    check(f"{name}: no addresses", [key for key in found.keys() if key in ("Home-page", "Project-URL", "Download-URL")])


def kept_in_git():
    """What of the wanted files is, or is to be; links to others aside."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *WANTED]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name]
    return {name for name in names if not os.path.islink(os.path.join(ROOT, name))}


def check_sdist(path):
    files = kept_in_git()
    base = f"mla_prefill-{version()}"
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        check("sdist: all in one folder", [m.name for m in members if not m.name.startswith(f"{base}/")])
        check("sdist: nothing but files", [m.name for m in members if not m.isfile()])
        contents = {m.name.removeprefix(f"{base}/"): archive.extractfile(m).read() for m in members if m.isfile()}
    check_metadata("sdist", contents.pop("PKG-INFO"))
    # Where each comes from: links of the checkout are files of its own.
    origins = {name: os.path.relpath(os.path.realpath(os.path.join(ROOT, "python", name)), ROOT) for name in contents}
    check("sdist: nothing but what is kept in Git", sorted(set(origins.values()) - files))
    check("sdist: all of that", sorted(files - set(origins.values())))
    check("sdist: as it is there", [name for name, origin in origins.items() if contents[name] != read(origin)])


def check_licenses():
    """Of what is linked: the texts that came with it."""
    nanobind = distribution("nanobind")
    own = next(file for file in nanobind.files if file.match("*.dist-info/licenses/LICENSE"))
    check("licence of nanobind", "" if own.read_binary() == read("python", LICENSES[1]) else f"is not {own}")
    header = next(file for file in nanobind.files if file.name == "robin_map.h").read_text()
    text = re.sub(r"^ \* ?", "", header.split("/**\n")[1].split("\n */")[0], flags=re.M)
    check("licence of robin_map", "" if text == read("python", LICENSES[2]).decode().strip() else "is not its header's")
    swift = os.path.realpath(shutil.which("swift"))
    with open(os.path.join(os.path.dirname(swift), "..", "share", "swift", "LICENSE.txt"), "rb") as file:
        check("licence of Swift", "" if file.read() == read("python", LICENSES[3]) else "is not its toolchain's")


def check_wheel_contents(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        info = f"mla_prefill-{version()}.dist-info"
        check_metadata("wheel", archive.read(f"{info}/METADATA"))
        check("wheel: licences are in it", [n for n in LICENSES if f"{info}/licenses/{n}" not in names])
        check("wheel: the package and what is told of it", [n for n in names if not n.startswith(("mla_prefill/", info))])
        check("wheel: the library", "" if "mla_prefill/libmlaprefill.so.1" in names else "is not there")


def check_wheel(path):
    check_wheel_contents(path)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = os.path.join(folder, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-index", path], check=True)
        # Neither Swift nor a compiler.
        ran = subprocess.run(
            [python, "-I", "-m", "mla_prefill", "selftest"], cwd=folder, env={"PATH": "/nowhere"},
            capture_output=True, text=True)
        print(ran.stdout, ran.stderr, sep="")
        check("wheel: works with nothing else installed", "" if ran.returncode == 0 else f"status {ran.returncode}")


def only(folder, pattern):
    found = glob.glob(os.path.join(folder, pattern))
    if len(found) != 1:
        sys.exit(f"{folder}/{pattern}: there are {len(found)}")
    return os.path.abspath(found[0])


if __name__ == "__main__":
    check_sdist(only(sys.argv[1], "*.tar.gz"))
    check_licenses()
    if sys.argv[2:] == ["wheel"]:
        check_wheel(only(sys.argv[1], "*.whl"))
    sys.exit(failed)
