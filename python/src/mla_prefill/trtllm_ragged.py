# SPDX-License-Identifier: Apache-2.0
"""TRTLLM_RAGGED: ragged batches with a workspace of the caller's."""

from mla_prefill._native import NativePrefillBackend


class TrtllmRaggedPrefillBackend(NativePrefillBackend):
    """TensorRT-LLM's ragged contract."""

    member_name = "TRTLLM_RAGGED"
    supported_devices = ("cpu", "cuda")

    @staticmethod
    def get_name() -> str:
        return "TRTLLM_RAGGED"
