# SPDX-License-Identifier: Apache-2.0
"""A quantized kv_b_proj as vLLM's own linear layers load it: served from its weights, with
vLLM's prefill by that layer as reference; and which ones vLLM itself refuses on CPUs."""

import logging
from types import SimpleNamespace

import pytest
import torch
from amx_operators import missing
from comparison import assert_same
from conftest import TOKENS
from engine import Engine
from mla_prefill.vllm_plugin import packed_layer, reset_usage, usage
from mla_prefill.vllm_plugin.cpu_mla import PrefillCPUMLAImpl
from mla_prefill.vllm_plugin.prefill import VllmCPUPrefillBackend
from mla_prefill.vllm_plugin.threads import announce_refusal
from model import write_model
from quantized import (
    Fp8,
    fp8_blocks,
    fp8_channel,
    fp8_tensor,
    fp8_weight,
    int4_groups,
    int8_channel,
    scales,
)
from vllm.config import CompilationMode, VllmConfig, set_current_vllm_config
from vllm.distributed import (
    destroy_distributed_environment,
    destroy_model_parallel,
    init_distributed_environment,
    initialize_model_parallel,
)
from vllm.model_executor.layers.quantization.utils import quant_utils
from vllm.v1.attention.backends.mla.cpu_mla import CPUMLAImpl
from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend
from without_engine import (
    HEADS,
    NOPE,
    RANK,
    ROWS,
    VALUE,
    UpProjection,
    arguments,
    implementation,
    metadata,
)


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    """What vLLM's layers ask for when they are made."""
    config = VllmConfig()
    # As with enforce_eager: what torch 2.13 compiles for latents in fp8 overruns its memory.
    config.compilation_config.mode = CompilationMode.NONE
    config.model_config = SimpleNamespace(dtype=torch.bfloat16, is_moe=False, quantization=None)
    with set_current_vllm_config(config):
        meeting = tmp_path_factory.mktemp("quantized") / "ranks"
        init_distributed_environment(1, 0, f"file://{meeting}", 0, backend="gloo")
        initialize_model_parallel(1, 1)
        yield
        destroy_model_parallel()
        destroy_distributed_environment()


@pytest.fixture
def amx(monkeypatch):
    """As on a host with AMX: vLLM's operators for these do with AVX-512."""
    operators = ("fp8_scaled_mm_cpu", "int8_scaled_mm_with_quant", "int4_scaled_mm_cpu")
    if lacking := missing(operators):
        pytest.skip(f"vLLM's build for this CPU has no {lacking}")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)


@pytest.fixture
def no_amx():
    if torch.cpu._is_amx_tile_supported():
        pytest.skip("this CPU has AMX")


def prefill(kind, kv_b_proj, backend):
    """A step's output, by an implementation of vLLM's attention."""
    step = arguments()
    reset_usage()
    implementation(kind, kv_b_proj).forward_mha(**step, attn_metadata=metadata(backend))
    return step["output"]


def ours(kv_b_proj):
    return prefill(PrefillCPUMLAImpl, kv_b_proj, VllmCPUPrefillBackend)


def theirs(kv_b_proj):
    return prefill(CPUMLAImpl, kv_b_proj, CPUSDPAMLAPrefillBackend)


def plain(weights):
    """An unquantized layer of these."""
    layer = UpProjection()
    layer.weight = weights
    return layer


def distance(one, other):
    return float((one.float() - other.float()).norm() / other.float().norm())


@pytest.fixture
def read(monkeypatch):
    """What MLAPrefillLayer has been made of."""
    made, kind = [], packed_layer.MLAPrefillLayer
    monkeypatch.setattr(
        packed_layer,
        "MLAPrefillLayer",
        lambda **given: made.append(given["kv_b_proj"].dtype) or kind(**given),
    )
    return made


def check_served(scheme, read, as_stored):
    kv_b_proj, meant = scheme.load()
    got = ours(kv_b_proj)
    assert usage().layer_calls == 1
    assert read[-1] == (torch.float8_e4m3fn if as_stored else torch.bfloat16)
    # It is what the checkpoint means, which vLLM's layers are further from: they round.
    exact = theirs(plain(meant.bfloat16()))
    assert distance(got, exact) < 0.01
    assert distance(got, theirs(kv_b_proj)) < 0.05


def test_fp8_channels(configuration, no_amx, read):
    check_served(fp8_channel(), read, as_stored=True)


@pytest.mark.parametrize("size", [32, 128])
def test_int4(configuration, no_amx, read, size):
    if lacking := missing(("cpu_gemm_wna16",)):
        pytest.skip(f"vLLM's build for this CPU has no {lacking}")
    check_served(int4_groups(size), read, as_stored=False)


def test_an_engine_with_int4(prompts, tmp_path):
    """As Kimi-K2.5 has it: groups of 32."""
    if lacking := missing(("cpu_gemm_wna16",)):
        pytest.skip(f"vLLM's build for this CPU has no {lacking}")
    model, few = write_model(tmp_path / "int4", scheme=int4_groups(32)), prompts[1:]

    def run(prefill):
        with Engine(model, prefill) as engine:
            engine.usage()
            generated = engine.generate(few, TOKENS)
            (counted,) = engine.usage()
            assert (counted["layer_calls"] > 0) == (prefill == "plugin")
        return generated

    theirs = run("vllm")
    assert_same(run("plugin"), theirs, lambda: (run("peer"), theirs))


@pytest.mark.parametrize(
    "scheme, as_stored",
    [
        (fp8_blocks(128, 128), True),
        (fp8_blocks(32, 128), True),
        (int8_channel(), False),
        (int4_groups(32), False),
    ],
    ids=str,
)
def test_served_on_amx_hosts(configuration, amx, read, scheme, as_stored):
    check_served(scheme, read, as_stored)


def test_blocks_with_e8m0_scales(configuration, amx, read):
    """AMX_MLA, which has these, dequantizes weights and never calls the layer."""
    kv_b_proj, meant = fp8_blocks(128, 128, e8m0=True).load()
    with pytest.raises(RuntimeError, match="expect scales2 to be float32"):
        theirs(kv_b_proj)
    assert distance(ours(kv_b_proj), theirs(plain(meant.bfloat16()))) < 0.01
    assert read == [torch.float8_e4m3fn]


def test_vllm_refuses_one_fp8_scale_for_all(configuration):
    with pytest.raises(RuntimeError, match="static_scaled_fp8_quant"):
        fp8_tensor().load()


def test_vllm_refuses_blocks_of_32(configuration, amx):
    with pytest.raises(ValueError, match="K-dimension block size of 128, got 32"):
        fp8_blocks(32, 32).load()


def test_vllm_refuses_blocks_without_amx(configuration, no_amx):
    with pytest.raises(ValueError, match="requires AMX tile support"):
        fp8_blocks(128, 128).load()


def test_vllm_refuses_int8_without_amx(configuration, no_amx, caplog, monkeypatch):
    """Its MLA cannot read the weights of such a layer, which runs; nor can we."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    announce_refusal.cache_clear()
    kv_b_proj, meant = int8_channel().load()
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute"):
        quant_utils.get_and_maybe_dequant_weights(kv_b_proj, torch.bfloat16)
    got = ours(kv_b_proj)
    assert usage().layer_calls == 0
    assert distance(got, theirs(plain(meant.bfloat16()))) < 0.05
    assert "CPU_MLA goes vLLM's own way: kv_b_proj cannot be packed" in caplog.text


@pytest.fixture
def asked(monkeypatch):
    """What vLLM has been asked to dequantize, and an answer for it."""
    asked = []
    monkeypatch.setattr(
        quant_utils,
        "get_and_maybe_dequant_weights",
        lambda layer, dtype: asked.append(layer) or layer.meant().to(dtype),
    )
    return asked


@pytest.mark.parametrize(
    "block, scale, name",
    [
        ([128, 128], scales(8, 4), "weight_scale_inv"),
        ([128, 128], scales(8, 4), "weight_scale"),
        ([32, 32], scales(32, 16), "weight_scale_inv"),
        ([96, 80], scales(11, 7), "weight_scale_inv"),
        ([64, 128], scales(16, 4).to(torch.float8_e8m0fnu), "weight_scale_inv"),
        (None, scales(ROWS, 1), "weight_scale"),
        (None, scales(), "weight_scale"),
        (None, scales(1), "weight_scale"),
    ],
)
def test_fp8_goes_as_it_is_stored(asked, block, scale, name):
    layer = Fp8(fp8_weight(), block, scale, name)
    got = ours(layer)
    assert usage().layer_calls == 1 and not asked
    expected = ours(plain(layer.meant().bfloat16()))
    torch.testing.assert_close(got.float(), expected.float(), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("rows", [slice(0, NOPE), slice(NOPE, NOPE + VALUE)], ids=["k", "v"])
def test_rearranged_weights_are_dequantized_by_vllm(asked, rows):
    """As kernels rearrange them, keeping type and shape."""
    layer = Fp8(fp8_weight(), [128, 128], scales(8, 4))
    layer.weight = layer.weight.clone()
    of_heads = layer.weight.view(HEADS, NOPE + VALUE, RANK)[:, rows]
    of_heads.copy_(of_heads.reshape(HEADS, -1, 2, RANK).mT.reshape(of_heads.shape))
    got = ours(layer)
    assert usage().layer_calls == 1 and asked
    assert torch.equal(got, ours(plain(layer.meant().bfloat16())))
