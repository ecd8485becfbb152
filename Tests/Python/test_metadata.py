# SPDX-License-Identifier: Apache-2.0
"""What a backend written in Python is told when C code runs it."""

import numpy as np
import pytest
from mean_backend import Mean, one_head

from mla_prefill import register_mla_prefill_backend


@pytest.mark.parametrize("library", ["numpy", None])
def test_metadata_of_a_python_backend(library):
    """As vLLM's backends look at it."""

    @register_mla_prefill_backend("LOOKING")
    class Looking(Mean):
        tensor_library = library
        seen = []

        def prepare_metadata(self, prefill_metadata):
            super().prepare_metadata(prefill_metadata)
            self.seen.append(prefill_metadata)

        def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
            self.seen.append(chunk)
            return q, q[:, :, 0].T

    backend = one_head("LOOKING")
    backend.prepare_metadata([0, 2, 5], [(0, [0, 2, 5], [0, 3, 3])])
    rows, lse = np.zeros((5, 1, 2), np.float32), np.zeros((1, 5), np.float32)
    tensors = rows, rows, rows, rows.copy(), lse
    backend.run_prefill_context_chunk(-1, [0, 2, 5], [0, 1, 3], *tensors, False)
    metadata, chunk = Looking.seen
    assert metadata.query_lens_cpu.tolist() == [2, 3] and metadata.max_query_len == 3
    assert isinstance(metadata.prefill_backend, Looking) and metadata.block_table is None
    assert metadata.q_data_type is metadata.output_dtype is metadata.topk_mask_workspace is None
    (announced,) = metadata.chunked_context.chunks
    assert announced.token_to_seq.tolist() == [0, 0, 0] and not announced.all_rows_active
    assert announced.num_context_tokens == announced.num_local_context_tokens == 3
    assert chunk.token_to_seq.tolist() == [0, 1, 1] and chunk.all_rows_active
    assert (chunk.index, chunk.num_requests, chunk.max_seq_len) == (-1, 2, 2)
    for name in ("padded_local_seq_lens", "padded_local_cu_seq_lens", "local_starts"):
        assert getattr(chunk, name) is None
