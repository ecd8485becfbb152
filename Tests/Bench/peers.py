"""Times MLA prefill attention against what engines use today, side by side.

    python Tests/Bench/peers.py [--seq 512,1024,...] [--rounds N] [--json FILE]

Contenders, taken in turns within each round, all on the same bf16 inputs and the
same threads, torch's:

    ours          mla_prefill's CPU backend
    torch SDPA    torch's fused attention, V padded to the query head dimension,
                  a call for each request or, where all are equally long, one for all
    vLLM CPU      vLLM's CPUSDPAMLAPrefillBackend

Needs torch, vLLM and mla_prefill in one environment: `make test-vllm` makes one.
After the single prompts come batches of short ones, and a chunk of context: 128
queries on 8064 keys, with lse. Speeds count causal FLOPs, S * S / 2 * 2 * (qk + v) *
heads, and all of a chunk's. A contender that needs more than --seconds for its
samples gets no more of them.
"""

import argparse

import torch

import mla_prefill
from sides import (
    HEADS, NOPE, QK, ROPE, SCALE, V, print_header, print_rows, take_turns,
    use_threads_of_torch, write_json,
)

# Requests and the length of each.
BATCHES = [(8, 128), (64, 16)]
# Queries and keys of one request.
CHUNKS = [(128, 8064)]


def offsets(lengths):
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)


class Metadata:
    def __init__(self, lengths):
        self.query_start_loc = offsets(lengths)
        self.max_query_len = max(lengths)
        self.chunked_context = None


class Chunk:
    """The last queries' context, as vLLM describes a chunk."""

    def __init__(self, queries, keys):
        self.index = -1
        self.query_start_loc, self.cu_seq_lens = offsets([queries]), offsets([keys])
        self.max_query_len, self.max_seq_len = queries, keys
        self.all_rows_active = True


def backend(cls, lengths):
    made = cls(num_heads=HEADS, scale=SCALE, kv_lora_rank=512, qk_nope_head_dim=NOPE,
               qk_rope_head_dim=ROPE, v_head_dim=V, vllm_config=None)
    made.prepare_metadata(Metadata(lengths))
    return made


def torch_sdpa(q, k, v, requests, causal):
    """`requests` of equal length, one after the other in the rows."""
    padded = torch.nn.functional.pad(v, (0, QK - V))
    heads_first = [x.unflatten(0, (requests, -1)).transpose(1, 2) for x in (q, k, padded)]
    out = torch.nn.functional.scaled_dot_product_attention(
        *heads_first, is_causal=causal, scale=SCALE)
    return out.transpose(1, 2).flatten(0, 1)[..., :V]


def inputs(queries, keys, seed):
    torch.manual_seed(seed)
    q, k = (torch.randn(rows, HEADS, QK).bfloat16() for rows in (queries, keys))
    return q, k, torch.randn(keys, HEADS, V).bfloat16()


def new_tokens(requests, length, own, vllm):
    """Contenders for the new tokens of equally long requests, and their FLOPs."""
    tensors = inputs(requests * length, requests * length, requests * length)
    lengths = [length] * requests
    backends = {"ours": backend(own, lengths), "vLLM CPU": backend(vllm, lengths)}
    runs = {
        name: lambda b=b: b.run_prefill_new_tokens(*tensors, return_softmax_lse=False)
        for name, b in backends.items()
    }
    runs["torch SDPA"] = lambda: torch_sdpa(*tensors, requests, True)
    return runs, requests * length * length * (QK + V) * HEADS


def context_chunk(queries, keys, own, vllm):
    tensors = inputs(queries, keys, queries)
    chunk = Chunk(queries, keys)
    backends = {"ours": backend(own, [queries]), "vLLM CPU": backend(vllm, [queries])}
    runs = {
        name: lambda b=b: b.run_prefill_context_chunk(chunk, *tensors)[0]
        for name, b in backends.items()
    }
    runs["torch SDPA"] = lambda: torch_sdpa(*tensors, 1, False)
    return runs, 2 * queries * keys * (QK + V) * HEADS


def main():
    from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend as vllm

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seq", default="16,64,128,256,512,1024,2048,4096")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    own = mla_prefill.MLAPrefillBackendEnum["CPU"].get_class()
    use_threads_of_torch()
    print(f"{HEADS} heads of {NOPE}/{ROPE}/{V}, bf16, {torch.get_num_threads()} threads, "
          "seed = tokens, or queries of the chunk")
    print_header()
    rows = []

    def measure(case, contenders, **shape):
        measured = take_turns(case, *contenders, arguments.rounds, arguments.seconds)
        print_rows(measured)
        rows.extend({**shape, **row} for row in measured)

    for tokens in (int(s) for s in arguments.seq.split(",")):
        measure(f"S={tokens}", new_tokens(1, tokens, own, vllm), seq=tokens)
    for requests, length in BATCHES:
        measure(f"{requests} x {length}", new_tokens(requests, length, own, vllm))
    for queries, keys in CHUNKS:
        measure(f"{queries} on {keys}", context_chunk(queries, keys, own, vllm))
    if arguments.json:
        write_json(arguments.json, peers=rows)


if __name__ == "__main__":
    main()
