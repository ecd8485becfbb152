# SPDX-License-Identifier: Apache-2.0
"""FLASHINFER: a plan made once for each batch, run by every layer."""

from mla_prefill._native import NativePrefillBackend


class FlashInferPrefillBackend(NativePrefillBackend):
    """FlashInfer's schedule: ``prepare_metadata`` splits keys so that threads are busy alike."""

    member_name = "FLASHINFER"
    supported_devices = ("cpu", "cuda")

    @staticmethod
    def get_name() -> str:
        return "FLASHINFER"
