# SPDX-License-Identifier: Apache-2.0
"""C++ compiled against the header, linked with the library that Python has loaded."""

import ctypes
import os
import shlex
import subprocess
from pathlib import Path

import mla_prefill

HERE = Path(__file__).parent
INCLUDE = HERE.parents[1] / "include"
LIBRARY = mla_prefill.library_path()


def compiled(output, *arguments):
    subprocess.run(
        [
            *shlex.split(os.environ.get("CXX", "g++")),
            "-std=c++17",
            "-O1",
            "-Wall",
            "-Wextra",
            f"-I{INCLUDE}",
            *arguments,
            LIBRARY,
            f"-Wl,-rpath,{os.path.dirname(LIBRARY)}",
            "-lpthread",
            "-o",
            output,
        ],
        check=True,
    )
    return output


def shared_library(directory):
    """one_registry.cpp, in this process."""
    path = compiled(directory / "libone_registry.so", "-shared", "-fPIC", HERE / "one_registry.cpp")
    library = ctypes.CDLL(str(path))
    library.last_message.restype = ctypes.c_char_p
    return library
