# SPDX-License-Identifier: Apache-2.0
"""vLLM's CPU engine on this library's kernels, by vLLM's own plug-in mechanism.

vLLM loads the entry point ``vllm.general_plugins`` in every process, workers
included, and calls ``register``: vLLM's registry then resolves its CPU backends
to the classes of ``mla_prefill.vllm_plugin.prefill``. ``MLA_PREFILL_VLLM=0`` in
the environment leaves vLLM as it is.

Importing this package imports neither vLLM nor torch.
"""

from mla_prefill.vllm_plugin.registration import is_enabled, overrides, register
from mla_prefill.vllm_plugin.usage import Usage, reset_usage, usage

__all__ = ["Usage", "is_enabled", "overrides", "register", "reset_usage", "usage"]
