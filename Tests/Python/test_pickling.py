# SPDX-License-Identifier: Apache-2.0
"""Members of the registry, pickled and copied."""

import copy
import pickle
import subprocess
import sys

from test_registry import PATH, Plain, Second

from mla_prefill import MLAPrefillBackendEnum, register_mla_prefill_backend


def unpickled_elsewhere(members, before=""):
    """What other members print as in a process that knows none of ours."""
    program = f"""
import pickle, sys
sys.path.insert(0, {str(__file__.rpartition("/")[0])!r})
{before}
for member in pickle.loads(bytes.fromhex({pickle.dumps(members).hex()!r})):
    try:
        print(member.name, member.get_path())
    except ValueError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_pickling_in_this_process():
    register_mla_prefill_backend("A")(Plain)
    register_mla_prefill_backend("B")(Second)
    for member in MLAPrefillBackendEnum:
        assert pickle.loads(pickle.dumps(member)) is member
        assert copy.deepcopy(member) is member


def test_pickling_to_another_process():
    register_mla_prefill_backend("A")(Plain)
    register_mla_prefill_backend("B")(Second)
    MLAPrefillBackendEnum.register("C", PATH)
    members = [MLAPrefillBackendEnum.CPU, *(MLAPrefillBackendEnum[name] for name in "ABC")]
    assert unpickled_elsewhere(members) == [
        "CPU mla_prefill.cpu_sdpa.CPUSDPAMLAPrefillBackend",
        f"A {PATH}",
        f"B {Second.__module__}.Second",
        f"C {PATH}",
    ]


def test_pickling_of_custom():
    (line,) = unpickled_elsewhere([MLAPrefillBackendEnum.CUSTOM])
    assert "CUSTOM must be registered before use" in line


def test_pickling_to_a_process_whose_import_registers():
    register_mla_prefill_backend("REGISTERED_BY_IMPORT", "registers_itself.Backend")
    (line,) = unpickled_elsewhere([MLAPrefillBackendEnum.REGISTERED_BY_IMPORT])
    assert line == "REGISTERED_BY_IMPORT registers_itself.Backend"
