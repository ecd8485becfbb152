# SPDX-License-Identifier: Apache-2.0
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_registry import Plain

from mla_prefill import (
    MLADimensions,
    MLAPrefillBackendEnum,
    MLAPrefillConfig,
    MLAPrefillSelectorConfig,
    _core,
    backends,
    get_mla_prefill_backend,
    register_mla_prefill_backend,
)
from mla_prefill._dtypes import dtype_name
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend
from mla_prefill.flashinfer import FlashInferPrefillBackend
from mla_prefill.configuration import Platform, gpu_platform
from mla_prefill.tokenspeed_mla import TokenspeedMLAPrefillBackend
from mla_prefill.zen_cpu_sdpa import ZenCPUSDPAMLAPrefillBackend

#: What the CPU platform chooses by itself depends on the host.
AUTOMATIC = (
    ZenCPUSDPAMLAPrefillBackend
    if ZenCPUSDPAMLAPrefillBackend.is_available()
    else CPUSDPAMLAPrefillBackend
)
DEEPSEEK = MLADimensions(qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)


def vllm_config(backend=None, dtype="torch.bfloat16", **text_config):
    return SimpleNamespace(
        model_config=SimpleNamespace(dtype=dtype, hf_text_config=SimpleNamespace(**text_config)),
        attention_config=SimpleNamespace(mla_prefill_backend=backend),
        device_config=SimpleNamespace(device_type="cpu"),
    )


@pytest.mark.parametrize(
    "config",
    [
        None,
        MLAPrefillConfig(),
        MLAPrefillConfig(backend="auto"),
        SimpleNamespace(model_config=None),
        vllm_config(qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128),
        vllm_config(dtype=np.dtype("float32")),
    ],
)
def test_automatic(config):
    assert get_mla_prefill_backend(config) is AUTOMATIC


@pytest.mark.parametrize(
    "choice",
    [
        "FLASHINFER",
        "flashinfer",
        MLAPrefillBackendEnum.FLASHINFER,
        SimpleNamespace(name="FLASHINFER"),
    ],
)
def test_explicit(choice, monkeypatch):
    for config in (MLAPrefillConfig(backend=choice), vllm_config(backend=choice)):
        assert get_mla_prefill_backend(config) is FlashInferPrefillBackend
    monkeypatch.setenv("MLA_PREFILL_BACKEND", "FLASHINFER")
    assert get_mla_prefill_backend(None) is FlashInferPrefillBackend
    assert get_mla_prefill_backend(MLAPrefillConfig(backend="auto")) is AUTOMATIC


@pytest.mark.parametrize(
    "wrong",
    ["FLASH_ATTN", "NO", "", MLAPrefillBackendEnum.FLASHINFER, {"backend": "FLASHINFER"}, 3, []],
)
def test_what_is_no_configuration(wrong):
    with pytest.raises(TypeError, match="^vllm_config: must be an MLAPrefillConfig"):
        get_mla_prefill_backend(wrong)


@pytest.mark.parametrize("wrong", [None, 1.5, 1 << 70, b"float32", [], object()])
def test_what_is_no_dtype(wrong):
    config = MLAPrefillConfig(dtype=wrong)
    for call in (backends, get_mla_prefill_backend):
        with pytest.raises(TypeError, match=f"^dtype: must be .*, not {type(wrong).__name__}$"):
            call(config)


@pytest.mark.parametrize("unknown", ["float64", np.float64, np.dtype("int8"), "nonsense"])
def test_a_dtype_that_nobody_serves(unknown):
    config = MLAPrefillConfig(dtype=unknown)
    assert not any(row.is_valid for row in backends(config))
    with pytest.raises(ValueError, match=dtype_name(unknown)):
        get_mla_prefill_backend(config)


def test_explicit_that_does_not_fit():
    with pytest.raises(
        ValueError,
        match=r"Selected MLA prefill backend CPU is not valid for this configuration\. "
        r"Reason: \['dtype float64 not supported'\]",
    ):
        get_mla_prefill_backend(MLAPrefillConfig(backend="CPU", dtype=np.dtype("float64")))
    with pytest.raises(ValueError, match="Unknown MLA prefill backend: 'NO'"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="NO"))
    with pytest.raises(ValueError, match="CUSTOM must be registered before use"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="CUSTOM"))


@pytest.mark.parametrize("capability", [(-1, 0), (9, -1), (-1, -1)])
def test_negative_capabilities_are_named(capability):
    config = MLAPrefillConfig(platform=Platform.CUDA, device_capability=capability)
    text = rf"^device_capability = \({capability[0]}, {capability[1]}\): must not be negative"
    with pytest.raises(ValueError, match=text):
        backends(config)


def test_gpu_rules():
    config = MLAPrefillSelectorConfig(
        "bfloat16", MLADimensions(qk_nope_head_dim=1, qk_rope_head_dim=1, v_head_dim=1)
    )
    reasons = FlashInferPrefillBackend.validate_configuration((9, 0), config)
    assert reasons == [
        "compute capability 9.0 not supported",
        "required dependencies not available",
        "Model does not have supported MLA dimensions (got (qk_nope_head_dim=1, "
        "qk_rope_head_dim=1, v_head_dim=1); supported: (qk_nope_head_dim=128, "
        "qk_rope_head_dim=64, v_head_dim=128))",
    ]
    (hint,) = TokenspeedMLAPrefillBackend.validate_configuration(
        SimpleNamespace(major=10, minor=0), MLAPrefillSelectorConfig("bfloat16", DEEPSEEK)
    )
    assert hint.startswith("tokenspeed_mla package is not installed")
    assert not FlashInferPrefillBackend.supports_compute_capability((9, 0))
    assert FlashInferPrefillBackend.supports_compute_capability((10, 0))
    on_gpu = MLAPrefillConfig(platform=Platform.CUDA, device_capability=(9, 0))
    with pytest.raises(ValueError, match="No valid MLA prefill backend found"):
        get_mla_prefill_backend(on_gpu)


def test_questions_of_native_classes():
    backend = CPUSDPAMLAPrefillBackend
    assert backend.supports_dtype("float32") and not backend.supports_dtype("float64")
    assert backend.supports_dtype(np.dtype("float16")) and backend.supports_dtype(np.float16)
    assert np.dtype("float32") in backend.supported_dtypes
    assert backend.supports_mla_dimensions(DEEPSEEK)
    assert backend.validate_configuration(None, MLAPrefillSelectorConfig("float32", DEEPSEEK)) == []


def test_subclass_of_a_native_class_answers_itself():
    class Narrow(CPUSDPAMLAPrefillBackend):
        supported_dtypes = ["bfloat16"]

        @classmethod
        def is_available(cls):
            return False

    reasons = Narrow.validate_configuration(None, MLAPrefillSelectorConfig("float32"))
    assert reasons == ["dtype float32 not supported", "required dependencies not available"]


def test_each_rule_of_a_subclass_is_asked():
    class Absent(CPUSDPAMLAPrefillBackend):
        @classmethod
        def is_available(cls):
            return False

    class Typeless(CPUSDPAMLAPrefillBackend):
        @classmethod
        def supports_dtype(cls, dtype):
            return False

    class Shapeless(CPUSDPAMLAPrefillBackend):
        @classmethod
        def supports_mla_dimensions(cls, mla_dimensions):
            return False

    class Grounded(CPUSDPAMLAPrefillBackend):
        @classmethod
        def supports_compute_capability(cls, device_capability):
            return False

    class Particular(CPUSDPAMLAPrefillBackend):
        supported_mla_dimensions = [DEEPSEEK]

    config = MLAPrefillSelectorConfig("float32")
    for backend, reason in (
        (Absent, "required dependencies"),
        (Typeless, "dtype float32"),
        (Shapeless, "Model does not have"),
        (Grounded, "device capability"),
        (Particular, "Model does not have"),
    ):
        (said,) = backend.validate_configuration(None, config)
        assert said.startswith(reason)


@pytest.mark.parametrize("hip, platform", [("6.4", Platform.ROCM), (None, Platform.CUDA)])
def test_a_capability_is_of_the_gpu_that_torch_was_built_for(monkeypatch, hip, platform):
    torch = SimpleNamespace(version=SimpleNamespace(hip=hip))
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert gpu_platform() is platform


def test_template_of_the_base_class():
    class Narrow(Plain):
        supported_mla_dimensions = [DEEPSEEK]

        @classmethod
        def supports_compute_capability(cls, device_capability):
            return False

    config = MLAPrefillSelectorConfig("int8")
    assert Narrow.validate_configuration(None, config) == [
        "device capability not available",
        "dtype int8 not supported",
        "Model does not have supported MLA dimensions (got (qk_nope_head_dim=0, "
        f"qk_rope_head_dim=0, v_head_dim=0); supported: {DEEPSEEK})",
    ]
    assert Narrow.validate_configuration(SimpleNamespace(major=8, minor=6), config)[0] == (
        "compute capability 8.6 not supported"
    )


def test_selection_asks_python_classes():
    asked = []

    @register_mla_prefill_backend(MLAPrefillBackendEnum.ZEN_CPU)
    class Choosy(Plain):
        @classmethod
        def validate_configuration(cls, device_capability, selector_config):
            asked.append((device_capability, selector_config))
            return super().validate_configuration(device_capability, selector_config)

    assert get_mla_prefill_backend(MLAPrefillConfig(dtype="float16")) is Choosy
    assert get_mla_prefill_backend(MLAPrefillConfig(dtype="float32")) is CPUSDPAMLAPrefillBackend
    assert [dtype_name(config.dtype) for _, config in asked] == ["float16", "float32"]
    assert asked[0][0] is None and asked[0][1].platform == Platform.CPU


def test_exceptions_of_rules_arrive_as_themselves():
    class Odd(Exception):
        pass

    raised = Odd("no rule")

    @register_mla_prefill_backend("ODD")
    class Raising(Plain):
        @classmethod
        def validate_configuration(cls, device_capability, selector_config):
            raise raised

    with pytest.raises(Odd) as caught:
        get_mla_prefill_backend(MLAPrefillConfig(backend="ODD"))
    assert caught.value is raised
    rows = _core.backends(MLAPrefillConfig().library_config())
    assert rows[-1]["reasons"] == ("Odd: no rule",)


def test_classes_that_cannot_be_imported():
    register_mla_prefill_backend(MLAPrefillBackendEnum.ZEN_CPU, "no.such.module.Class")
    assert get_mla_prefill_backend(None) is CPUSDPAMLAPrefillBackend
    with pytest.raises(ValueError, match=r"ZEN_CPU is not valid .*Reason: \['ImportError'\]"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="ZEN_CPU"))


def test_path_that_c_code_registered_alone():
    _core.override_backend("CPU", "test_registry.Plain", None, None)
    assert get_mla_prefill_backend(MLAPrefillConfig(backend="CPU")) is Plain
    with pytest.raises(ValueError, match="dtype float32 not supported"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="CPU", dtype="float32"))
    _core.override_backend("CPU", "no.such.module.Class", None, None)
    with pytest.raises(ValueError, match="ImportError"):
        get_mla_prefill_backend(MLAPrefillConfig(backend="CPU"))
