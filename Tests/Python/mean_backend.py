# SPDX-License-Identifier: Apache-2.0
"""A backend written in Python."""

import threading
from itertools import pairwise

import numpy as np

from mla_prefill import MLAPrefillBackend, _core


class Mean(MLAPrefillBackend):
    """Attention where all scores are 0."""

    supported_dtypes = ["float32"]
    tensor_library = "numpy"
    seen = []

    @staticmethod
    def get_name():
        return "MEAN"

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        self.seen.append((type(q), q.shape, out is not None, threading.get_ident()))
        result, lse = np.empty_like(v), np.empty((self.num_heads, len(v)), np.float32)
        offsets = self._prefill_metadata.query_start_loc
        for begin, end in pairwise(offsets):
            counts = np.arange(1, end - begin + 1)
            result[begin:end] = v[begin:end].cumsum(0) / counts[:, None, None]
            lse[:, begin:end] = np.log(counts)
        if out is not None:
            out[...] = result
            result = out
        return (result, lse) if return_softmax_lse else result

    def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
        raise NotImplementedError


def one_head(name):
    """A backend's object by way of the library, as C++ would have it."""
    return backend_object(name, num_heads=1, dim=2)


def backend_object(name, *, num_heads, dim):
    return _core.Backend(
        name,
        num_heads=num_heads,
        scale=1.0,
        kv_lora_rank=0,
        qk_nope_head_dim=dim,
        qk_rope_head_dim=0,
        v_head_dim=dim,
        ignore_override=False,
    )
