# SPDX-License-Identifier: Apache-2.0
"""vLLM's own tests of the registry, with the module's name replaced.

Left out are those of vLLM's workspace manager, a pool of GPU scratch memory that
this package has no counterpart of: here scratch is the library's.
"""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("torch")

import vllm_sdist

MODULE = "tests/v1/attention/test_mla_prefill_registry.py"
NEEDS_WORKSPACE_MANAGER = ["test_prefill_backend_does_not_pin_grown_workspace"]
WORKSPACE_IMPORT = re.compile(r"from vllm\.v1\.worker\.workspace import \(.*?\)\n", re.DOTALL)


def test_vllm_registry(tmp_path):
    text = vllm_sdist.read(MODULE)
    text, removed = WORKSPACE_IMPORT.subn("", text)
    assert removed == 1
    text = text.replace("vllm.v1.attention.backends.mla.prefill", "mla_prefill")
    assert "vllm." not in text.replace("tests.v1", "")
    module = tmp_path / MODULE
    module.parent.mkdir(parents=True)
    for package in [module.parent, *module.parent.parents][:3]:
        (package / "__init__.py").touch()
    module.write_text(text)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", MODULE),
            *(f"--deselect={MODULE}::{test}" for test in NEEDS_WORKSPACE_MANAGER),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
    )
    print(run.stdout, run.stderr)
    defined = len(re.findall(r"^def test_", text, re.MULTILINE))
    assert run.returncode == 0
    assert f"{defined - len(NEEDS_WORKSPACE_MANAGER)} passed, 2 deselected" in run.stdout
