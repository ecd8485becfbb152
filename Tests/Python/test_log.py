# SPDX-License-Identifier: Apache-2.0
"""What the library has to say, in Python's log; each in a process of its own."""

import os
import subprocess
import sys

import pytest

from mla_prefill import MLAPrefillConfig, backends, get_mla_prefill_backend

HEADER = """
import logging, sys
class Records(logging.Handler):
    said = []
    def emit(self, record):
        self.said.append((record.levelname, record.getMessage()))
handler = Records()
logger = logging.getLogger("mla_prefill")
logger.addHandler(handler)
logger.setLevel(logging.DEBUG)
logger.propagate = False
"""


def run(code, cap=None):
    environment = {name: value for name, value in os.environ.items() if name != "MLA_MAX_ISA"}
    if cap is not None:
        environment["MLA_MAX_ISA"] = cap
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("cap", ["bogus", "PORTABLE", "avx512bf16", "two words"])
def test_a_wrong_cap_is_told(cap):
    done = run("import mla_prefill; print(mla_prefill.cpu_summary())", cap)
    # Where nobody has set up a log, warnings go to stderr.
    assert f"MLA_MAX_ISA = {cap}: ignored, must be one of portable, avx2" in done.stderr
    assert f"MLA_MAX_ISA={cap} ignored" in done.stdout
    assert done.stdout.count("\n") == 1
    report = run("import runpy; runpy.run_module('mla_prefill', run_name='__main__')", cap)
    assert f"MLA_MAX_ISA={cap} ignored" in report.stdout
    program = HEADER + "import mla_prefill; assert len(handler.said) == 1; print(handler.said[0])"
    assert run(program, cap).stdout.startswith(f"('WARNING', 'MLA_MAX_ISA = {cap}: ignored")


@pytest.mark.parametrize("cap", [None, "", "portable"])
def test_a_right_cap_is_not_told(cap):
    done = run("import mla_prefill; print(mla_prefill.cpu_summary())", cap)
    assert not done.stderr and "ignored" not in done.stdout


def test_messages_in_order():
    program = HEADER + """
import mla_prefill as m
for name in "ABC":
    m.register_mla_prefill_backend(name, "a.B")
m.get_mla_prefill_backend(m.MLAPrefillConfig(backend="CPU"))
print([text.split(" -> ")[0] for _, text in handler.said])
assert {level for level, _ in handler.said} == {"INFO"}
"""
    expected = [f"Registered new MLA prefill backend: {name}" for name in "ABC"]
    assert run(program).stdout.strip() == str([*expected, "Using CPU MLA prefill backend."])


def test_messages_that_waited_in_order():
    """Those of C code's calls, delivered by the next one of Python's."""
    program = HEADER + """
import ctypes
import mla_prefill as m

class Registration(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
                ("class_path", ctypes.c_char_p), ("vtable", ctypes.c_void_p)]

library = ctypes.CDLL(m.library_path())
for name in (b"A", b"B", b"C"):
    registration = Registration(ctypes.sizeof(Registration), 0, b"a.B", None)
    assert library.mla_register_backend(name, ctypes.byref(registration)) == 0
assert not handler.said
m.backends()
print([text.split(" -> ")[0][-1] for _, text in handler.said])
"""
    assert run(program).stdout.strip() == "['A', 'B', 'C']"


def test_a_handler_that_raises_fails_no_call():
    program = HEADER + """
import mla_prefill as m
class Broken(logging.Filter):
    def filter(self, record):
        raise RuntimeError("broken filter")
logger.addFilter(Broken())
m.get_mla_prefill_backend(m.MLAPrefillConfig(backend="CPU"))
try:
    m.get_mla_prefill_backend(m.MLAPrefillConfig(backend="NO"))
except ValueError as error:
    print(error)
"""
    done = run(program)
    assert done.stdout.startswith("Unknown MLA prefill backend: 'NO'")
    assert "broken filter" in done.stderr


def test_what_a_handler_raises_that_is_no_exception():
    program = HEADER + """
import mla_prefill as m
class Interrupted(logging.Filter):
    def filter(self, record):
        raise KeyboardInterrupt
broken = Interrupted()
for call in (
    lambda: m.get_mla_prefill_backend(m.MLAPrefillConfig(backend="CPU")),
    lambda: m.register_mla_prefill_backend("NEW", "a.B"),
):
    logger.addFilter(broken)
    try:
        call()
    except KeyboardInterrupt:
        print("raised")
    logger.removeFilter(broken)
print([row.name for row in m.backends() if row.is_dynamic])
m.remove_mla_prefill_backend("NEW")
"""
    assert run(program).stdout.split() == ["raised", "raised", "['NEW']"]


def test_a_handler_that_calls_back():
    program = HEADER + """
import mla_prefill as m
class Calling(logging.Handler):
    def emit(self, record):
        m.set_num_threads(1)
        m.MLAPrefillBackendEnum["CPU"].get_path()
logger.addHandler(Calling())
m.get_mla_prefill_backend(m.MLAPrefillConfig(backend="CPU"))
print(m.get_num_threads(), len(handler.said))
"""
    assert run(program).stdout.split() == ["1", "1"]


def test_more_messages_than_are_kept(caplog):
    """From threads whose calls end at any time."""
    from threading import Thread

    def choose():
        for _ in range(200):
            get_mla_prefill_backend(MLAPrefillConfig(backend="CPU"))

    with caplog.at_level("INFO", logger="mla_prefill"):
        threads = [Thread(target=choose) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        backends()
    texts = {record.getMessage() for record in caplog.records}
    assert texts == {"Using CPU MLA prefill backend."} and len(caplog.records) <= 800


def test_places_of_messages_are_free_again(caplog):
    with caplog.at_level("INFO", logger="mla_prefill"):
        for _ in range(100):
            get_mla_prefill_backend(MLAPrefillConfig(backend="CPU"))
    assert len(caplog.records) == 100


def test_the_log_of_a_host_stays_its_own():
    program = """
import ctypes, importlib.util, pathlib
package = pathlib.Path(importlib.util.find_spec("mla_prefill").origin).parent
library = ctypes.CDLL(str(package / "libmlaprefill.so.1"), mode=ctypes.RTLD_GLOBAL)
said = []
Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p)
callback = Callback(lambda context, level, message: said.append(message.decode()))
assert library.mla_set_log_callback(callback, None) == 0
import mla_prefill as m
m.get_mla_prefill_backend(m.MLAPrefillConfig(backend="CPU"))
print(said)
"""
    assert run(program).stdout.strip() == "['Using CPU MLA prefill backend.']"
