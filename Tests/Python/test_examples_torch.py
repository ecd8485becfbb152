# SPDX-License-Identifier: Apache-2.0
import pytest

pytest.importorskip("torch")

from test_examples import each_example, runs


@each_example("torch")
def test_example(example):
    assert runs(example)
