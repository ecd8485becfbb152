# SPDX-License-Identifier: Apache-2.0
import pytest
from native_code import shared_library

from mla_prefill import MLAPrefillBackendEnum, _core


@pytest.fixture(autouse=True)
def untouched_registry(monkeypatch):
    """Every test begins and ends with what the library brings along."""
    monkeypatch.delenv("MLA_PREFILL_BACKEND", raising=False)
    yield
    # Nobody is asked: classes of tests may answer with anything.
    for row in _core.backends(None):
        _core.clear_override(row["name"])
        if row["is_dynamic"]:
            _core.remove_backend(row["name"])
    assert len(MLAPrefillBackendEnum) == 8


@pytest.fixture(scope="session")
def cpp(tmp_path_factory):
    return shared_library(tmp_path_factory.mktemp("cpp"))
