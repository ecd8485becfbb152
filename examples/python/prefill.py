"""One recorded engine step through the Python package: new tokens, two context
chunks, the merges; with torch where it is installed, else with numpy.

    pip install ./python
    python examples/python/prefill.py [dsv2_chunked.safetensors]

SPDX-License-Identifier: Apache-2.0
"""

import json
import sys
from importlib.util import find_spec

import numpy as np

from mla_prefill import (
    ChunkedContextMetadata,
    ContextChunk,
    MLAPrefillConfig,
    PrefillMetadata,
    cpu_summary,
    get_mla_prefill_backend,
    merge_attn_states,
)

MAX_OUT_ERROR = 4e-3
MAX_LSE_ERROR = 1e-3


def from_bits(bits):
    """A bfloat16 tensor over 16-bit patterns, of whichever library is here."""
    if find_spec("torch"):
        import torch

        return torch.from_numpy(bits.copy()).view(torch.bfloat16)
    import ml_dtypes

    return bits.view(ml_dtypes.bfloat16)


def as_float(tensor):
    return np.asarray(tensor.float() if hasattr(tensor, "float") else tensor, np.float32)


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    types = {"BF16": np.uint16, "F32": np.float32, "I32": np.int32}
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = from_bits(values) if entry["dtype"] == "BF16" else values
    return tensors, metadata


def report(name, out, lse, expected_out, expected_lse):
    """Prints the errors; whether they are small enough."""
    got, expected = as_float(out), as_float(expected_out[: len(out)])
    out_error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    lse = as_float(lse)
    lse_error = np.abs(lse - expected_lse[:, : lse.shape[1]]).max()
    good = bool(out_error <= MAX_OUT_ERROR and lse_error <= MAX_LSE_ERROR)
    print(f"  {name:9} out {out_error:.2e}   lse {lse_error:.2e}{'' if good else '   TOO FAR'}")
    return good


def run_step(backend, data):
    """Whether all results of the step are good."""
    chunks = [
        ContextChunk(
            index=index,
            query_start_loc=data[f"chunk{index}_query_start_loc"],
            cu_seq_lens=data[f"chunk{index}_cu_seq_lens"],
        )
        for index in range(2)
    ]
    # Once for each engine step; all layers share it.
    backend.prepare_metadata(
        PrefillMetadata(
            query_start_loc=data["query_start_loc"],
            chunked_context=ChunkedContextMetadata(chunks=chunks),
        )
    )
    out, lse = backend.run_prefill_new_tokens(
        data["q"], data["k_new"], data["v_new"], return_softmax_lse=True
    )
    good = [report("suffix", out, lse, data["suffix_out"], data["suffix_lse"])]

    rows = int(chunks[0].query_start_loc[-1])
    parts = []
    for chunk in chunks:
        name = f"chunk{chunk.index}"
        part, part_lse = backend.run_prefill_context_chunk(
            chunk, data["q"][:rows], data[f"{name}_k"], data[f"{name}_v"]
        )
        good.append(report(name, part, part_lse, data[f"{name}_out"], data[f"{name}_lse"]))
        parts.append((part, part_lse))

    (context, context_lse), (second, second_lse) = parts
    merge_attn_states(context, context, context_lse, second, second_lse, context_lse)
    good.append(report("context", context, context_lse, data["context_out"], data["context_lse"]))
    merge_attn_states(out[:rows], context, context_lse, out[:rows], lse[:, :rows], lse[:, :rows])
    good.append(report("all", out, lse, data["out"], data["lse"]))
    return all(good)


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "Tests/Data/dsv2_chunked.safetensors"
    data, metadata = read_safetensors(path)
    dimensions = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    backend_class = get_mla_prefill_backend(MLAPrefillConfig(dtype="bfloat16", **dimensions))
    print(cpu_summary())
    print(f"backend {backend_class.get_name()}, errors against the recording:")
    backend = backend_class(
        num_heads=data["q"].shape[1],
        scale=float(metadata["scale"]),
        kv_lora_rank=512,
        **dimensions,
    )
    return 0 if run_step(backend, data) else 1


if __name__ == "__main__":
    sys.exit(main())
