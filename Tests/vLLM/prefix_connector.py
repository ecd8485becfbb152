# SPDX-License-Identifier: Apache-2.0
"""A KV connector of vLLM's that keeps the beginning of each prompt on disk and reloads it.

vLLM's example keeps whole prompts and finds none that goes on differently.
"""

import os

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.example_connector import ExampleConnector


def config(folder, tokens):
    """``kv_transfer_config`` of an engine.

    Args:
        tokens: of the beginning, a multiple of the block size.
    """
    return {
        "kv_connector": "PrefixConnector",
        "kv_connector_module_path": __name__,
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"shared_storage_path": str(folder), "tokens": tokens},
    }


class PrefixConnector(ExampleConnector):
    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self._tokens = self._kv_transfer_config.get_from_extra_config("tokens", 0)

    def get_num_new_matched_tokens(self, request, num_computed_tokens):
        is_stored = self._found_match_for_request(request)
        return (self._tokens - num_computed_tokens if is_stored else 0), False

    def build_connector_meta(self, scheduler_output):
        metadata = super().build_connector_meta(scheduler_output)
        for request in metadata.requests:
            request.token_ids = request.token_ids[: self._tokens]
            request.slot_mapping = request.slot_mapping[: self._tokens]
        return metadata

    def _found_match_for_prompt(self, prompt_token_ids, mm_hashes):
        beginning = torch.tensor(prompt_token_ids)[: self._tokens]
        return os.path.exists(self._generate_foldername_debug(beginning, mm_hashes))
