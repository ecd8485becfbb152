# SPDX-License-Identifier: Apache-2.0
"""ROCM_AITER_FA: the FlashAttention contract of AITER."""

from mla_prefill._native import NativePrefillBackend


class AiterFlashAttnPrefillBackend(NativePrefillBackend):
    """AITER's FlashAttention contract."""

    member_name = "ROCM_AITER_FA"

    @staticmethod
    def get_name() -> str:
        return "ROCM_AITER_FA"
