# SPDX-License-Identifier: Apache-2.0
"""Makes torch say that this CPU has nothing above MLA_MAX_ISA.

vLLM then loads its build for such CPUs. Python imports this at its start where
capped.sh has put the folder on its path, in vLLM's workers as well.
"""

import os

import torch

_TESTS = {
    "avx512": ("_is_avx512_supported", "_is_vnni_supported"),
    "avx512_bf16": ("_is_avx512_bf16_supported",),
    "amx": ("_is_amx_tile_supported", "_is_amx_fp16_supported"),
}
_ORDER = ["portable", "avx2", *_TESTS]

for isa in _ORDER[_ORDER.index(os.environ["MLA_MAX_ISA"]) + 1 :]:
    for test in _TESTS.get(isa, ()):
        setattr(torch.cpu, test, lambda: False)
