# SPDX-License-Identifier: Apache-2.0
"""Which classes are served, and that refused ones stay as they are."""

import pytest
from tiny import build

from mla_prefill.transformers import enable
from mla_prefill.transformers.classes import mla_classes

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
