"""Times MLA prefill attention against what engines use today, side by side.

    python Tests/Bench/peers.py [--seq 512,1024,...] [--rounds N] [--json FILE]

Contenders, taken in turns within each round, all on the same two-byte inputs and
the same number of threads:

    ours          mla_prefill's CPU backend
    torch SDPA    scaled_dot_product_attention, V padded to the query head dimension
    vLLM CPU      vLLM's CPUSDPAMLAPrefillBackend

Needs torch, vLLM and mla_prefill in one environment: `make test-vllm` makes one.
Speeds count causal FLOPs, S * S / 2 * 2 * (qk + v) * heads. A contender that
needs more than --seconds for its samples gets no more of them.
"""

import argparse
import json
import statistics
import sys
import time

import torch

import mla_prefill

HEADS, NOPE, ROPE, V = 16, 128, 64, 128
SCALE = (NOPE + ROPE) ** -0.5


class Metadata:
    def __init__(self, tokens):
        self.query_start_loc = torch.tensor([0, tokens], dtype=torch.int32)
        self.max_query_len = tokens
        self.chunked_context = None


def backend(cls, tokens):
    made = cls(num_heads=HEADS, scale=SCALE, kv_lora_rank=512, qk_nope_head_dim=NOPE,
               qk_rope_head_dim=ROPE, v_head_dim=V, vllm_config=None)
    made.prepare_metadata(Metadata(tokens))
    return lambda q, k, v: made.run_prefill_new_tokens(q, k, v, return_softmax_lse=False)


def torch_sdpa(q, k, v):
    padded = torch.nn.functional.pad(v, (0, NOPE + ROPE - V))
    heads_first = [x.transpose(0, 1).unsqueeze(0) for x in (q, k, padded)]
    out = torch.nn.functional.scaled_dot_product_attention(
        *heads_first, is_causal=True, scale=SCALE)
    return out[0].transpose(0, 1)[..., :V]


def contenders(tokens):
    from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

    return {
        "ours": backend(mla_prefill.MLAPrefillBackendEnum["CPU"].get_class(), tokens),
        "torch SDPA": torch_sdpa,
        "vLLM CPU": backend(CPUSDPAMLAPrefillBackend, tokens),
    }


def relative_error(out, expected):
    difference = (out.double() - expected.double()).norm()
    return float(difference / expected.double().norm())


def measure(tokens, rounds, seconds):
    torch.manual_seed(tokens)
    q, k = (torch.randn(tokens, HEADS, NOPE + ROPE).bfloat16() for _ in range(2))
    v = torch.randn(tokens, HEADS, V).bfloat16()
    flops = tokens * tokens * (NOPE + ROPE + V) * HEADS
    runs = contenders(tokens)
    times = {name: [] for name in runs}
    outs = {}
    for round_number in range(rounds + 1):  # the first warms up
        for name, run in runs.items():
            if round_number > 3 and sum(times[name]) > seconds:
                continue
            started = time.perf_counter()
            outs[name] = run(q, k, v)
            elapsed = time.perf_counter() - started
            if round_number:
                times[name].append(elapsed)
        progress = f"S={tokens}: round {round_number} of {rounds}"
        print(f"\r{progress}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    ours = statistics.median(times["ours"])
    return [
        {
            "seq": tokens, "contender": name, "samples": len(taken),
            "median_tflops": flops / statistics.median(taken) * 1e-12,
            "best_tflops": flops / min(taken) * 1e-12,
            "times_slower_than_ours": statistics.median(taken) / ours,
            "difference_from_ours": relative_error(outs[name], outs["ours"]),
        }
        for name, taken in times.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seq", default="512,1024,2048,4096")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    rows = []
    print(f"{HEADS} heads of {NOPE}/{ROPE}/{V}, bf16, {torch.get_num_threads()} threads, seed = S")
    print(f"{'S':>6} {'contender':>12} {'median':>8} {'best':>8} TFLOP/s  {'ours is':>8}")
    mla_prefill.set_num_threads(torch.get_num_threads())
    for tokens in (int(s) for s in arguments.seq.split(",")):
        for row in measure(tokens, arguments.rounds, arguments.seconds):
            rows.append(row)
            print(f"{row['seq']:>6} {row['contender']:>12} {row['median_tflops']:>8.3f} "
                  f"{row['best_tflops']:>8.3f}          {row['times_slower_than_ours']:>7.1f}x"
                  f"  (difference {row['difference_from_ours']:.1e})")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "peers": rows}, file, indent=2)


if __name__ == "__main__":
    main()
