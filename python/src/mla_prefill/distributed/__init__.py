# SPDX-License-Identifier: Apache-2.0
"""Context parallelism: a prompt's tokens spread over the ranks of a torch.distributed group.

For prompts that one machine is too slow for. Needs torch; ``docs/distributed.md`` says what
holds.
"""

from mla_prefill.distributed.parts import PromptParts, shard
from mla_prefill.distributed.prefill import ContextParallelPrefill

__all__ = ["ContextParallelPrefill", "PromptParts", "shard"]
