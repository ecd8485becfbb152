# SPDX-License-Identifier: Apache-2.0
"""Run with failing_new.cpp preloaded: each operator new of each call fails in turn."""

import ctypes
import os

import numpy as np

import mla_prefill
from mla_prefill import (
    MLAPrefillBackendEnum,
    MLAPrefillConfig,
    PrefillMetadata,
    _core,
    register_mla_prefill_backend,
)

new = ctypes.CDLL(os.environ["LD_PRELOAD"])
new.fail_from_now.argtypes = [ctypes.c_long]
new.stop_failing.restype = ctypes.c_long

LONG = "A_NAME_THAT_IS_TOO_LONG_TO_BE_KEPT_WITHOUT_MEMORY"
random = np.random.default_rng(0)
q, k, v = (random.standard_normal((5, 2, dim), np.float32) for dim in (96, 96, 64))
weights = random.standard_normal((2 * 128, 32), np.float32)
latents = random.standard_normal((5, 32), np.float32)
metadata = PrefillMetadata(query_start_loc=np.array([0, 3, 5], np.int32))


class Mine(mla_prefill.MLAPrefillBackend):
    """Its functions fail with a long message where they are asked to."""

    @staticmethod
    def get_name():
        return LONG

    def prepare_metadata(self, prefill_metadata):
        pass

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        raise ValueError("what this backend has to say takes more than a few bytes: " + LONG)

    def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
        raise NotImplementedError


def backend(name):
    return MLAPrefillBackendEnum[name].get_class()(
        num_heads=2, scale=0.1, kv_lora_rank=512, qk_nope_head_dim=64, qk_rope_head_dim=32,
        v_head_dim=64, vllm_config=None
    )  # fmt: skip


cpu = backend("CPU")
cpu.prepare_metadata(metadata)
layer = mla_prefill.MLAPrefillLayer(
    num_heads=2, scale=0.1, kv_lora_rank=32, qk_nope_head_dim=64, qk_rope_head_dim=0, v_head_dim=64,
    kv_b_proj=weights
)  # fmt: skip
out = np.empty((5, 2, 64), np.float32)


def register():
    if any(row.name == LONG for row in mla_prefill.backends()):
        _core.remove_backend(LONG)
    _core.register_backend(LONG, "package.with_a_long_name." + LONG, None, None)


register_mla_prefill_backend(MLAPrefillBackendEnum.CUSTOM)(Mine)
mine = _core.Backend(
    "CUSTOM", num_heads=2, scale=0.1, kv_lora_rank=512, qk_nope_head_dim=64, qk_rope_head_dim=32,
    v_head_dim=64, ignore_override=False
)  # fmt: skip
mine.prepare_metadata([0, 3, 5], [])


def run_mine():
    """From C: the exception comes back, or what there was no memory for."""
    try:
        mine.run_prefill_new_tokens(q, k, v, out, None, None, False)
    except ValueError as error:
        assert LONG in str(error)
    else:
        raise AssertionError("nothing raised")


CALLS = [
    lambda: backend("FLASHINFER"),
    lambda: cpu.prepare_metadata(metadata),
    lambda: cpu.run_prefill_new_tokens(q, k, v, True, out=out),
    lambda: layer.forward(q[:, :, :64], latents, None),
    lambda: mla_prefill.get_mla_prefill_backend(MLAPrefillConfig(backend="CPU")),
    lambda: mla_prefill.plan_context_chunks([100, 200, 300], 64, 16),
    lambda: [row.reasons for row in mla_prefill.backends()],
    lambda: mla_prefill.cpu_features(),
    register,
    run_mine,
]


def each_new_fails(call):
    """How many there are."""
    nth = 0
    while True:
        nth += 1
        error = None
        new.fail_from_now(nth)
        try:
            call()
        except MemoryError as memory_error:
            error = memory_error
        finally:
            seen = new.stop_failing()
        if seen < nth:
            return nth - 1
        del error
        call()


if __name__ == "__main__":
    for call in CALLS:
        call()
    print(*(each_new_fails(call) for call in CALLS))
