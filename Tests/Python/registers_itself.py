# SPDX-License-Identifier: Apache-2.0
from mla_prefill import register_mla_prefill_backend
from mla_prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend


@register_mla_prefill_backend("REGISTERED_BY_IMPORT")
class Backend(CPUSDPAMLAPrefillBackend):
    pass
