# SPDX-License-Identifier: Apache-2.0
"""Which classes are served, and that refused ones stay as they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from tiny import build

from mla_prefill.transformers import enable
from mla_prefill.transformers.classes import mla_classes

ROOT = Path(__file__).resolve().parents[2]
SPARSE = {
    "axk2", "deepseek_v32", "dots3_note", "glm5_next", "glm_moe_dsa", "hy_v4", "hy_v4_vl",
    "mistral_large4",
}  # fmt: skip
DENSE = {
    "axk1", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_linear",
    "longcat_flash", "minicpm3", "mistral4", "youtu",
}  # fmt: skip


def test_every_class_is_served_or_refused_for_a_reason():
    refusals = {each.model: each.refusal for each in mla_classes()}
    assert {model for model, reason in refusals.items() if reason is None} == DENSE
    assert {model for model, reason in refusals.items() if reason} == SPARSE
    assert all("sparse" in refusals[model] for model in SPARSE)


@pytest.mark.parametrize("kind", sorted(SPARSE))
def test_refused_models_are_left_alone(kind):
    model = build(kind)
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=r"cannot be switched: its attention is sparse"):
        enable(model)
    assert model.config._attn_implementation == before
    assert not any("expand_kv" in vars(module) for module in model.modules())


def test_the_documents_list_them():
    text = (ROOT / "python" / "docs" / "transformers.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\w+) \| `(\w+)` \| (served|refused: sparse) \|$", text, re.MULTILINE)
    assert listed == [
        (each.model, each.name, "refused: sparse" if each.refusal else "served")
        for each in mla_classes()
    ]


def test_the_table():
    done = subprocess.run(
        [sys.executable, "-m", "mla_prefill", "transformers"], capture_output=True, text=True
    )
    assert done.returncode == 0
    title, *rows = done.stdout.splitlines()
    assert title == f"transformers {transformers.__version__}: enable() serves 10 of 18 MLA classes"
    assert [row.split()[:2] for row in rows] == [[row.model, row.name] for row in mla_classes()]
    assert sum(row.endswith(" served") for row in rows) == 10


def test_the_example():
    example = ROOT / "examples" / "transformers" / "generate.py"
    done = subprocess.run([sys.executable, example, "200"], capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "16 tokens after 200: the same" in done.stdout
