# SPDX-License-Identifier: Apache-2.0
"""Other versions of vLLM than the environment's: VLLM_VERSIONS, say "0.29.0 0.33.0", names them."""

import os
import subprocess
from pathlib import Path

import pytest
from comparison import assert_same
from engine import Engine
from model import LAYERS

VERSIONS = os.environ.get("VLLM_VERSIONS", "").split()


@pytest.mark.skipif(not VERSIONS, reason="VLLM_VERSIONS names none")
@pytest.mark.parametrize("version", VERSIONS)
def test_another_version(model, prompts, version):
    made = subprocess.run(
        [Path(__file__).with_name("version.sh"), version], stdout=subprocess.PIPE, text=True
    )
    assert made.returncode == 0
    paths = [made.stdout.strip(), *filter(None, [os.environ.get("PYTHONPATH")])]
    few = prompts[1:]

    def run(prefill):
        environment = {"PYTHONPATH": os.pathsep.join(paths)}
        with Engine(model, prefill, environment=environment) as engine:
            engine.usage()
            generated = engine.generate(few, 2)
            (usage,) = engine.usage()
            (facts,) = engine.facts()
            assert facts["version"].startswith(version)
            is_ours = facts["attention_class"].endswith(".cpu_mla.PrefillCPUMLAImpl")
            assert is_ours == (prefill == "plugin")
            assert not any("goes vLLM's own way" in line for line in engine.log)
        return generated, usage

    ours, usage = run("plugin")
    print(f"\n{version}: {usage}")
    assert usage["new_tokens"] == LAYERS * sum(map(len, few))
    assert usage["layer_calls"] > 0 and usage["new_tokens_calls"] == 0
    theirs, _ = run("vllm")
    assert_same(ours, theirs, lambda: (run("peer")[0], theirs))
