# SPDX-License-Identifier: Apache-2.0
"""What the library has to say, handed to a function; each in a process of its own."""

from test_log import run

HEADER = """
import logging, sys, threading
import mla_prefill as m

def say(name="CPU"):
    m.get_mla_prefill_backend(m.MLAPrefillConfig(backend=name))

def keep(level, message):
    said.append((level, message))

said, logged = [], []
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage())
logger = logging.getLogger("mla_prefill")
logger.addHandler(handler)
logger.setLevel(logging.DEBUG)
"""
SENTENCE = "Using CPU MLA prefill backend."


def lines(program, cap=None):
    return run(HEADER + program, cap).stdout.splitlines()


def test_messages_go_to_the_function_and_back_to_the_log():
    program = """
m.set_log_callback(keep)
say()
m.set_log_callback(None)
say()
m.set_log_callback(None)
say()
print(said, logged)
"""
    assert lines(program) == [f"[(20, '{SENTENCE}')] ['{SENTENCE}', '{SENTENCE}']"]


def test_a_function_takes_the_place_of_another_and_is_let_go():
    program = """
import weakref
class Receiver:
    def __call__(self, level, message):
        said.append(message)
first = Receiver()
gone = weakref.ref(first)
m.set_log_callback(first)
say()
m.set_log_callback(lambda *of: logged.append(of))
say()
del first
print(len(said), len(logged), gone())
"""
    assert lines(program) == ["1 1 None"]


def test_levels_are_those_of_logging():
    said = lines("m.set_log_callback(keep)\nprint(said)", cap="bogus")
    assert len(said) == 1 and said[0].startswith("[(30, 'MLA_MAX_ISA = bogus: ignored")


def test_lines_about_calls():
    program = """
import numpy as np
m.set_log_callback(keep)
m.set_verbose(1, to_log=True)
q = np.zeros((5, 2, 16), np.float32)
m.attention(q, q, q)
m.set_verbose(0)
m.attention(q, q, q)
print(len(said), said[0][0], said[0][1].split(",")[:3], logged)
"""
    assert lines(program) == ["1 20 ['mla_verbose', 'call', 'mla_attention'] []"]


def test_what_it_raises_fails_no_call():
    program = """
def broken(level, message):
    said.append(message)
    raise RuntimeError("broken callback")
unraisable = []
sys.unraisablehook = lambda args: unraisable.append(str(args.exc_value))
m.set_log_callback(broken)
for _ in range(3):
    say()
try:
    say("NO")
except ValueError as error:
    print(error)
print(len(said), unraisable)
"""
    refusal, counts = lines(program)
    assert refusal.startswith("Unknown MLA prefill backend: 'NO'")
    assert counts == f"3 {['broken callback'] * 3}"


def test_an_error_in_one_message_loses_no_other():
    """Several that waited for one call, those of a chosen backend's C code."""
    program = """
import ctypes
def broken(level, message):
    said.append(message.split(" -> ")[0][-1])
    raise RuntimeError("broken callback")
class Registration(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
                ("class_path", ctypes.c_char_p), ("vtable", ctypes.c_void_p)]
sys.unraisablehook = lambda args: None
m.set_log_callback(broken)
library = ctypes.CDLL(m.library_path())
for name in (b"A", b"B", b"C"):
    registration = Registration(ctypes.sizeof(Registration), 0, b"a.B", None)
    assert library.mla_register_backend(name, ctypes.byref(registration)) == 0
m.backends()
print(said)
"""
    assert lines(program) == ["['A', 'B', 'C']"]


def test_what_it_raises_that_is_no_exception():
    program = """
def interrupted(level, message):
    raise KeyboardInterrupt
m.set_log_callback(interrupted)
try:
    say()
except KeyboardInterrupt:
    print("raised")
m.set_log_callback(None)
say()
print(logged)
"""
    assert lines(program) == ["raised", f"['{SENTENCE}']"]


def test_it_may_call_the_package_and_set_another():
    program = """
def once(level, message):
    m.set_log_callback(keep)
    say()
    said.append(m.get_num_threads())
m.set_num_threads(1)
m.set_log_callback(once)
say()
print(said)
"""
    assert lines(program) == [f"[(20, '{SENTENCE}'), 1]"]


def test_threads():
    program = """
def work():
    for _ in range(200):
        say()
        m.set_log_callback(keep)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
m.set_log_callback(None)
print({message for _, message in said}, 0 < len(said) <= 800)
"""
    assert lines(program) == [f"{{'{SENTENCE}'}} True"]


def test_the_place_of_a_host():
    """A function takes it; None does not."""
    program = """
import ctypes
Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p)
callback = Callback(lambda context, level, message: logged.append("host"))
library = ctypes.CDLL(m.library_path())
def host():
    assert library.mla_set_log_callback(callback, None) == 0
host()
m.set_log_callback(None)
say()
m.set_log_callback(keep)
say()
host()
say()
m.set_log_callback(None)
say()
print(logged, len(said))
"""
    assert lines(program) == ["['host', 'host', 'host'] 1"]


def test_one_that_is_set_when_the_process_ends():
    assert lines("m.set_log_callback(keep)\nsay()\nprint('over')") == ["over"]
