"""The release wheels, as Sources/Packaging/wheels.sh leaves them.

    wheels.py FOLDER SDK PYTHON...

They are installed and run by each of these interpreters, and those for 64-bit Arm by the one in
the sysroot of SDK (Sources/Packaging/arm64-sdk.sh test), on an emulated CPU.
"""

import glob
import os
import re
import subprocess
import sys
import tempfile
import zipfile

import source_distribution
from source_distribution import ROOT, check, check_wheel_contents, version

sys.path.insert(0, os.path.join(ROOT, "Tests", "Gates"))
import wheel_files  # noqa: E402

#: The oldest glibc 2 that a wheel may need; manylinux_2_27 is as good.
OLDEST = 28
#: What the extension module of a wheel for each is called; no interpreter takes another one.
EXTENSIONS = {
    "cp310-cp310": "_core.cpython-310-{}-linux-gnu.so",
    "cp311-cp311": "_core.cpython-311-{}-linux-gnu.so",
    "cp312-abi3": "_core.abi3.so",
}


def check_wheel(path, tag, platform, machine):
    print(f"# {os.path.basename(path)}, {os.path.getsize(path)} bytes")
    check_wheel_contents(path)
    with zipfile.ZipFile(path) as archive:
        told = archive.read(f"mla_prefill-{version()}.dist-info/WHEEL").decode()
    tags = re.findall("^Tag: (.*)$", told, re.M)
    wanted = f"{tag}-manylinux_2_{platform}_{machine}"
    check(f"{wanted}: glibc 2.{OLDEST}", "" if int(platform) <= OLDEST else f"needs 2.{platform}")
    check(f"{wanted}: says so inside", [found for found in tags if found != wanted] or (not tags and "no tag"))
    files = {EXTENSIONS[tag].format(machine), "libmlaprefill.so.1"}
    check(f"{wanted}: {', '.join(sorted(files))}", sorted(files ^ set(wheel_files.compiled(path))))
    check(f"{wanted}: what is compiled in it", wheel_files.main(path, machine))


def check_wheels(folder):
    """All that are there; of each architecture the same.

    Returns:
        The machines that there are wheels for.
    """
    tags = {}
    pattern = rf"mla_prefill-{re.escape(version())}-(\w+-\w+)-manylinux_2_(\d+)_(\w+)\.whl"
    paths = sorted(glob.glob(os.path.join(folder, "*")))
    strange = [path for path in paths if not re.fullmatch(pattern, os.path.basename(path))]
    check("names of wheels", strange or ("" if paths else "there are none"))
    for path in (path for path in paths if path not in strange):
        tag, platform, machine = re.fullmatch(pattern, os.path.basename(path)).groups()
        tags.setdefault(machine, set()).add(tag)
        check_wheel(path, tag, platform, machine)
    differing = {machine: found for machine, found in tags.items() if found != next(iter(tags.values()))}
    check(f"for {', '.join(tags)}: {', '.join(sorted(next(iter(tags.values()), [])))}", differing)
    return tags


def check_run(name, command, folder, **environment):
    """What a user runs first, with neither Swift nor a compiler."""
    for words in (["selftest"], ["doctor"]):
        ran = subprocess.run(
            [*command, "-m", "mla_prefill", *words], cwd=folder, env={"PATH": "/nowhere", **environment},
            capture_output=True, text=True)
        if ran.returncode:
            print(ran.stdout, ran.stderr, sep="")
        check(f"{name}: {' '.join(words)}", "" if ran.returncode == 0 else f"status {ran.returncode}")


def installed_tag(site):
    with open(glob.glob(os.path.join(site, "mla_prefill-*.dist-info", "WHEEL"))[0]) as file:
        return re.search("^Tag: (.*)$", file.read(), re.M)[1]


def check_python(python, wheels):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        own = os.path.join(folder, "bin", "python")
        subprocess.run([own, "-m", "pip", "install", "-q", "--no-index", "--find-links", wheels, "mla-prefill"], check=True)
        site = glob.glob(os.path.join(folder, "lib", "python*", "site-packages"))[0]
        name = f"{os.path.basename(os.path.dirname(site))} with {installed_tag(site)}"
        check_run(name, [own, "-I"], folder)


def check_arm(sdk, wheels):
    sysroot = os.path.join(sdk, "sysroot")
    # Of all that there may be, for pip does not know which ones this one takes.
    platforms = [word for version in range(17, OLDEST + 1) for word in ("--platform", f"manylinux_2_{version}_aarch64")]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", wheels, "--target", folder,
             *platforms, "--python-version", "3.11", "--only-binary", ":all:", "mla-prefill"],
            check=True)
        emulated = [os.path.join(sdk, "qemu-aarch64"), "-cpu", "neoverse-v1", "-L", sysroot]
        check_run(
            f"python3.11 with {installed_tag(folder)}, emulated", [*emulated, os.path.join(sysroot, "usr/bin/python3.11")],
            folder, PYTHONHOME=os.path.join(sysroot, "usr"), PYTHONPATH=folder)


if __name__ == "__main__":
    wheels, sdk, *pythons = sys.argv[1:]
    wheels = os.path.abspath(wheels)
    machines = check_wheels(wheels)
    for python in pythons:
        check_python(python, wheels)
    if "aarch64" in machines:
        check_arm(sdk, wheels)
    sys.exit(source_distribution.failed)
