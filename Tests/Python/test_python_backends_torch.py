# SPDX-License-Identifier: Apache-2.0
"""Backends written in Python with torch."""

import pytest

torch = pytest.importorskip("torch")

from reference import Problem
from test_torch import TYPES, tensors_of

from mla_prefill import MLAPrefillBackend, _core, register_mla_prefill_backend


class Mean(MLAPrefillBackend):
    """Attention where all scores are 0, in torch."""

    seen = []

    @staticmethod
    def get_name():
        return "MEAN"

    def supports_out(self):
        return True

    def prepare_metadata(self, prefill_metadata):
        super().prepare_metadata(prefill_metadata)
        type(self).prepared = prefill_metadata

    def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, out=None, output_scale=None):
        self.seen.append((type(q), q.dtype, type(self._prefill_metadata.query_start_loc)))
        counts = torch.arange(1, len(v) + 1)
        out.copy_(v.float().cumsum(0) / counts[:, None, None])
        lse = counts.log().expand(self.num_heads, -1)
        return (out, lse) if return_softmax_lse else out

    def run_prefill_context_chunk(self, chunk, q, k, v, out=None):
        out.copy_(v.float().mean(0).expand(len(q), -1, -1))
        return out, torch.full((self.num_heads, len(q)), float(len(v))).log()


def test_python_backends_have_offsets_on_the_cpu():
    register_mla_prefill_backend("MEAN")(Mean)
    backend = _core.Backend("MEAN", **Problem([6]).arguments, ignore_override=False)
    q, k, v = tensors_of(Problem([6]))
    out, lse = torch.empty(6, 2, 16), torch.empty(2, 6)
    with torch.device("meta"):
        backend.prepare_metadata([0, 6], [(0, [0, 6], [0, 6])])
        metadata = Mean.prepared
    assert metadata.query_start_loc.tolist() == [0, 6]
    (chunk,) = metadata.chunked_context.chunks
    assert chunk.cu_seq_lens.tolist() == [0, 6] and chunk.seq_lens.tolist() == [6]
    backend.run_prefill_new_tokens(q, k, v, out, lse, None, False)


@pytest.mark.parametrize("dtype", TYPES)
def test_python_backend_by_way_of_the_library(dtype):
    register_mla_prefill_backend("MEAN")(Mean)
    problem = Problem([6], dtype=dtype)
    backend = _core.Backend("MEAN", **problem.arguments, ignore_override=False)
    backend.prepare_metadata([0, 6], [(0, [0, 6], [0, 6])])
    q, k, v = tensors_of(problem)
    out, lse = torch.empty(6, 2, 16, dtype=TYPES[dtype]), torch.empty(2, 6)
    backend.run_prefill_new_tokens(q, k, v, out, lse, None, False)
    assert Mean.seen[-1] == (torch.Tensor, TYPES[dtype], torch.Tensor)
    expected = v.float().cumsum(0) / torch.arange(1, 7)[:, None, None]
    torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(lse[0], torch.arange(1, 7).log())
    backend.run_prefill_context_chunk(0, [0, 6], [0, 6], q, k, v, out, lse, False)
    torch.testing.assert_close(out[0].float(), v.float().mean(0), atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("name", ["out", "lse"])
@pytest.mark.parametrize("change", [lambda t: t.to("meta"), lambda t: t.to_sparse()])
def test_results_that_cannot_be_copied_are_named(name, change):
    class Wrong(Mean):
        def run_prefill_new_tokens(self, q, k, v, return_softmax_lse, **keywords):
            result = {"out": torch.zeros(v.shape), "lse": torch.zeros(2, 6)}
            result[name] = change(result[name])
            return result["out"], result["lse"]

    register_mla_prefill_backend("WRONG")(Wrong)
    backend = _core.Backend("WRONG", **Problem([6]).arguments, ignore_override=False)
    backend.prepare_metadata([0, 6], [])
    out, lse = torch.empty(6, 2, 16), torch.empty(2, 6)
    with pytest.raises((TypeError, ValueError), match=f"^{name}: the backend returned what"):
        backend.run_prefill_new_tokens(*tensors_of(Problem([6])), out, lse, None, False)
