# SPDX-License-Identifier: Apache-2.0
"""CPU: whatever schedule is best for the batch."""

from mla_prefill._native import NativePrefillBackend


class CPUSDPAMLAPrefillBackend(NativePrefillBackend):
    """The CPU's own backend: a cost model chooses the schedule for each batch."""

    member_name = "CPU"

    @staticmethod
    def get_name() -> str:
        return "CPU_SDPA_MLA"
