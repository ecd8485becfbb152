# SPDX-License-Identifier: Apache-2.0
"""FLASH_ATTN: one work item for each request, head and tile of queries."""

from mla_prefill._native import NativePrefillBackend


class FlashAttnPrefillBackend(NativePrefillBackend):
    """FlashAttention's schedule: tiles of queries, the longest first."""

    member_name = "FLASH_ATTN"
    supported_devices = ("cpu", "cuda")

    @staticmethod
    def get_name() -> str:
        return "FLASH_ATTN"
