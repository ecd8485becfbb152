# SPDX-License-Identifier: Apache-2.0
"""The registry's enum, used by several threads and in a forked child."""

import os
import signal
import sys
from threading import Event, Thread

import pytest

from mla_prefill import MLAPrefillBackendEnum, _members, remove_mla_prefill_backend


def test_members_come_and_go_while_others_list_them():
    failures = []

    def repeated(work):
        try:
            for _ in range(400):
                work()
        except Exception as error:
            failures.append(error)

    def register_and_remove(name):
        member = MLAPrefillBackendEnum.register(name, "a.B")
        assert MLAPrefillBackendEnum[name] is member
        remove_mla_prefill_backend(name)

    work = [
        *(lambda name=name: register_and_remove(name) for name in ("ONE", "TWO")),
        lambda: list(MLAPrefillBackendEnum),
        lambda: [*MLAPrefillBackendEnum.__members__.items(), *reversed(MLAPrefillBackendEnum)],
    ]
    threads = [Thread(target=repeated, args=(each,)) for each in work]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    assert len(list(MLAPrefillBackendEnum)) == len(MLAPrefillBackendEnum) == 8


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_lock_of_its_own():
    taken, over = Event(), Event()

    def hold():
        with _members._CHANGES.lock:
            taken.set()
            over.wait()

    thread = Thread(target=hold)
    thread.start()
    taken.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if len(MLAPrefillBackendEnum) == 8 else 1)
    over.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
