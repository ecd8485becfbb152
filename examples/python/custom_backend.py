"""A backend of your own: a class that derives from one of the library's.

It records what passes through it. Registered once, it is what the selector gives
for CPU, and what C and C++ code of the process gets for that name.

    python examples/python/custom_backend.py

SPDX-License-Identifier: Apache-2.0
"""

import numpy as np

from mla_prefill import (
    MLAPrefillBackendEnum,
    MLAPrefillConfig,
    PrefillMetadata,
    backends,
    get_mla_prefill_backend,
    register_mla_prefill_backend,
)
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend


# --8<-- [start:overview]
@register_mla_prefill_backend(MLAPrefillBackendEnum.CPU)
class RecordingBackend(CPUSDPAMLAPrefillBackend):
    """Runs what it replaces, and notes how many tokens went through."""

    tokens = 0

    @staticmethod
    def get_name():
        return "RECORDING"

    def run_prefill_new_tokens(self, q, *arguments, **keywords):
        RecordingBackend.tokens += len(q)
        return super().run_prefill_new_tokens(q, *arguments, **keywords)
# --8<-- [end:overview]


def main():
    dimensions = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    config = MLAPrefillConfig(dtype="float32", backend="CPU", **dimensions)
    for row in backends(config):
        if row.is_overridden:
            print(f"{row.name} is {row.backend_name} ({row.class_path})")

    backend = get_mla_prefill_backend(config)(
        num_heads=4, scale=192**-0.5, kv_lora_rank=512, **dimensions
    )
    # Two requests with 700 and 33 new tokens.
    backend.prepare_metadata(PrefillMetadata(query_start_loc=[0, 700, 733]))
    random = np.random.default_rng(0)
    q, k = random.standard_normal((2, 733, 4, 192), np.float32)
    v = random.standard_normal((733, 4, 128), np.float32)
    out, lse = backend.run_prefill_new_tokens(q, k, v, return_softmax_lse=True)
    # The first token of a request sees its own key alone.
    assert np.allclose(out[[0, 700]], v[[0, 700]], atol=1e-6)
    assert np.allclose(lse[:, 0], (q[0] * k[0]).sum(-1) * 192**-0.5, atol=1e-4)
    print(f"out {out.shape}, lse {lse.shape}, tokens recorded {RecordingBackend.tokens}")

    MLAPrefillBackendEnum.CPU.clear_override()
    print(f"CPU is {get_mla_prefill_backend(config).get_name()} again")


if __name__ == "__main__":
    main()
