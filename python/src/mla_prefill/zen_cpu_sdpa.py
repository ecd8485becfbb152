# SPDX-License-Identifier: Apache-2.0
"""ZEN_CPU: the CPU backend on AMD hosts with AVX-512 BF16."""

from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend


class ZenCPUSDPAMLAPrefillBackend(CPUSDPAMLAPrefillBackend):
    """The CPU's backend on AMD hosts."""

    member_name = "ZEN_CPU"

    @staticmethod
    def get_name() -> str:
        return "ZEN_CPU_SDPA_MLA"
