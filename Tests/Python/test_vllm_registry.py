# SPDX-License-Identifier: Apache-2.0
"""Against vLLM's source: its own tests of the registry, with the module's name replaced,
the attributes of its metadata and the signatures of its backends.

Left out are those of vLLM's workspace manager, a pool of GPU scratch memory that
this package has no counterpart of: here scratch is the library's.
"""

import ast
import inspect
import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("torch")

import vllm_sdist

from mla_prefill import ChunkedContextMetadata, ContextChunk, MLAPrefillBackendEnum, PrefillMetadata

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


PREFILL = "vllm/v1/attention/backends/mla/prefill"
ATTENTION = "vllm/model_executor/layers/attention/mla_attention.py"


def definitions(path, kind):
    tree = ast.parse(vllm_sdist.read(path))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, kind)}


def test_metadata_has_what_vllm_s_has():
    classes = definitions(ATTENTION, ast.ClassDef)
    chunk = ContextChunk(query_start_loc=[0, 2, 2], cu_seq_lens=[0, 3, 4])
    context = ChunkedContextMetadata(chunks=[chunk])
    ours = {
        "ContextChunk": chunk,
        "ChunkedContextMetadata": context,
        "MLACommonPrefillMetadata": PrefillMetadata(query_start_loc=[0, 2, 2]),
    }
    for name, metadata in ours.items():
        body = classes[name].body
        fields = {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
        methods = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        assert len(fields) >= 6
        for attribute in fields | methods:
            getattr(metadata, attribute)


@pytest.mark.parametrize("name", ["flash_attn", "flashinfer", "trtllm_ragged", "tokenspeed_mla"])
def test_calls_take_what_vllm_s_take(name):
    functions = definitions(f"{PREFILL}/{name}.py", ast.FunctionDef)
    ours = MLAPrefillBackendEnum[name.upper()].get_class()
    for function in ("__init__", "run_prefill_new_tokens", "run_prefill_context_chunk"):
        theirs = [argument.arg for argument in functions[function].args.args]
        parameters = inspect.signature(getattr(ours, function)).parameters
        assert list(parameters)[: len(theirs)] == theirs
        # The others are of other versions, and vLLM's tensors say where they are.
        others = {"device"} if function == "__init__" else {"chunk_idx"}
        assert set(parameters) - set(theirs) <= others
