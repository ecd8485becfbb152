# SPDX-License-Identifier: Apache-2.0
"""Which classes are served, and that refused ones stay as they are."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from tiny import build
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention
from transformers.utils import logging

from mla_prefill.transformers import enable
from mla_prefill.transformers.classes import mla_classes

ROOT = Path(__file__).resolve().parents[2]
REFUSED = {
    "dots3_note": "some of its layers have sliding windows",
    "glm5_next": "its indexer does more than give the keys with the highest scores",
    "hy_v4": "it has attention sinks",
    "hy_v4_vl": "it has attention sinks",
}
DENSE = {
    "axk1", "bailing_hybrid", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_linear",
    "longcat_flash", "minicpm3", "mistral4", "youtu",
}  # fmt: skip
SPARSE = {"axk2", "deepseek_v32", "glm_moe_dsa", "mistral_large4"}


def test_every_class_is_served_or_refused_for_a_reason():
    refusals = {each.model: each.refusal for each in mla_classes()}
    assert {model for model, reason in refusals.items() if reason is None} == DENSE | SPARSE
    assert {model: reason for model, reason in refusals.items() if reason} == REFUSED


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_refused_models_are_left_alone(kind):
    model = build(kind)
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match=rf"cannot be switched: {REFUSED[kind]}"):
        enable(model)
    assert model.config._attn_implementation == before
    assert not any("expand_kv" in vars(module) for module in model.modules())


class OtherArguments(DeepseekV3Attention):
    def expand_kv(self, kv_nope, k_rot, positions):
        raise NotImplementedError


class OtherExpansion(DeepseekV3Attention):
    """Values and keys of whose heads have changed places."""

    def expand_kv(self, kv_nope, k_rot):
        keys, values = super().expand_kv(kv_nope, k_rot)
        return keys.roll(1, dims=1), values


class MoreThanAttention(DeepseekV3Attention):
    def forward(self, hidden_states, position_embeddings, attention_mask, cache=None, **others):
        query, kv_nope, k_rot = hidden_states
        attention = ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", None)
        keys, values = self.expand_kv(kv_nope, k_rot)
        keys = keys / keys.norm()
        return attention(self, query, keys, values, attention_mask)


class OwnAttention(DeepseekV3Attention):
    def forward(self, hidden_states, position_embeddings, attention_mask, cache=None, **others):
        query, kv_nope, k_rot = hidden_states
        keys, values = self.expand_kv(kv_nope, k_rot)
        return self.attend(self, query, keys, values, attention_mask)


class Windows(DeepseekV3Attention):
    sliding_window = 8


exec("class Sourceless(DeepseekV3Attention):\n def forward(self, *_): pass")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (OtherArguments, "expand_kv takes other arguments"),
        (OtherExpansion, "expand_kv is not kv_b_proj alone"),
        (MoreThanAttention, "its forward does more with expanded keys and values"),
        (OwnAttention, "its forward does more with expanded keys and values"),
        (Windows, "sliding_window = 8"),
        (globals()["Sourceless"], "its source is not at hand"),
    ],
)
def test_other_ways_are_refused(kind, reason):
    model = build("deepseek_v3")
    model.model.layers[2].self_attn.__class__ = kind
    with pytest.raises(
        ValueError, match=f"^model.model.layers.2.self_attn = {kind.__name__}.*{reason}"
    ):
        enable(model)
    assert not any("expand_kv" in vars(module) for module in model.modules())


def test_attention_that_cannot_be_chosen():
    model = build("deepseek_v3")
    model.model.layers[2].self_attn.config = copy.deepcopy(model.config)
    with pytest.raises(ValueError, match="^model = Deep.*its attention cannot be chosen"):
        enable(model)
    assert model.config._attn_implementation == "sdpa"
    assert not any("expand_kv" in vars(module) for module in model.modules())


def test_modes_of_training_stay():
    model = build("deepseek_v3").train()
    model.model.layers[1].self_attn.kv_b_proj.eval()
    modes = [module.training for module in model.modules()]
    enable(model)
    assert [module.training for module in model.modules()] == modes


def test_the_log_tells(caplog):
    logging.set_verbosity_info()
    try:
        enable(build("longcat_flash"))
    finally:
        logging.set_verbosity_warning()
    assert "mla_prefill serves 4 modules: LongcatFlashMLA" in caplog.text


def test_the_documents_list_them():
    text = (ROOT / "python" / "docs" / "transformers.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\w+) \| `(\w+)` \| (served|refused: [^|]+) \|$", text, re.MULTILINE)
    assert listed == [
        (each.model, each.name, f"refused: {each.refusal}" if each.refusal else "served")
        for each in mla_classes()
    ]


def test_the_table():
    done = subprocess.run(
        [sys.executable, "-m", "mla_prefill", "transformers"], capture_output=True, text=True
    )
    assert done.returncode == 0
    title, *rows = done.stdout.splitlines()
    assert title == f"transformers {transformers.__version__}: enable() serves 14 of 18 MLA classes"
    assert [row.split()[:2] for row in rows] == [[row.model, row.name] for row in mla_classes()]
    assert sum(row.endswith(" served") for row in rows) == 14


def test_the_example():
    example = ROOT / "examples" / "transformers" / "generate.py"
    done = subprocess.run([sys.executable, example, "200"], capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "16 tokens after 200: the same" in done.stdout
