# SPDX-License-Identifier: Apache-2.0
"""TOKENSPEED_MLA: warmed up for its dimensions when it is made."""

from mla_prefill._native import NativePrefillBackend


class TokenspeedMLAPrefillBackend(NativePrefillBackend):
    """TokenSpeed's contract: warmed up for its dimensions."""

    member_name = "TOKENSPEED_MLA"
    supported_devices = ("cpu", "cuda")

    @staticmethod
    def get_name() -> str:
        return "TOKENSPEED_MLA"
