"""How well a prompt spread over many ranks would be worked on: a simulation by measured costs.

    python Tests/Bench/distributed.py measure -o COSTS.json       what calls cost, on one core here
    python Tests/Bench/distributed.py draw COSTS.json -o CHART.png

Measured are the calls that mla_prefill.distributed makes, of a layer of DeepSeek-V3's
dimensions with 16 heads in bf16, in seconds of the processor's time, the best of several.
A rank is simulated as `CORES` such cores, between which calls divide evenly, all 128 heads
take 8 times as long, and it sends to its neighbour at a stated bandwidth, with 50 us for a
message. Efficiency is the time of one
rank's own forward call by the time of the slowest of n ranks, divided by n.
"""

import argparse
import json
from time import process_time

HEADS, RANK, NOPE, ROPE, VALUE = 16, 512, 128, 64, 128
#: Of a simulated layer.
ALL_HEADS = 128
LATENT_BYTES = (RANK + ROPE) * 2
#: Of a simulated rank.
CORES = 64
MESSAGE_SECONDS = 50e-6
LENGTHS = [2**n * 1024 for n in range(2, 11)]
PART_TOKENS = [128, 256, 512, 1024]


def best(call, repeats=5):
    def seconds():
        start = process_time()
        call()
        return process_time() - start

    return min(seconds() for _ in range(repeats))


def measure():
    import torch
    import mla_prefill

    mla_prefill.set_num_threads(1)
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random).to(torch.bfloat16)

    layer = mla_prefill.MLAPrefillLayer(
        num_heads=HEADS, scale=192**-0.5, kv_lora_rank=RANK, qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE, v_head_dim=VALUE,
        kv_b_proj=normal(HEADS * (NOPE + VALUE), RANK) / RANK**0.5, algorithm="up_projected",
    )
    tokens = 8192
    q, latents, k_pe = normal(tokens, HEADS, NOPE + ROPE), normal(tokens, RANK), normal(tokens, ROPE)
    cache = torch.cat([latents, k_pe], -1)
    out, lse = torch.empty(tokens, HEADS, VALUE), torch.empty(HEADS, tokens)
    part, part_lse = torch.empty_like(out), torch.empty_like(lse)
    costs = {"cpu": mla_prefill.cpu_summary(), "whole": {}, "own": {}, "part": {}, "merge": {}}
    for n in (1024, 2048, 4096, 8192):
        costs["whole"][n] = best(lambda: layer.forward(q[:n], latents[:n], k_pe[:n]), 3)
    for n in PART_TOKENS:
        costs["own"][n] = best(lambda: layer.forward(q[:n], latents[:n], k_pe[:n]))
        for rows in (128, 1024, 4096):
            costs["part"][f"{rows} on {n}"] = best(
                lambda: layer.forward(
                    q[:rows], None, None, cache[:n].unsqueeze(0), context_lens=[n],
                    out=part[:rows], lse=part_lse[:, :rows], context_only=True,
                )
            )
    for rows in (1024, 4096):
        costs["merge"][rows] = best(
            lambda: mla_prefill.merge_attn_states(
                out[:rows], part[:rows], part_lse[:, :rows], out[:rows], lse[:, :rows],
                output_lse=lse[:, :rows],
            )
        )
    return costs


def between(table, x):
    """A cost at x: along the line through the neighbours that were measured."""
    points = sorted((int(key), value) for key, value in table.items())
    (a, at_a), (b, at_b) = next(
        (pair for pair in zip(points, points[1:]) if x <= pair[1][0]), tuple(points[-2:])
    )
    return at_a + (at_b - at_a) * (x - a) / (b - a)


class Costs:
    def __init__(self, measured):
        self.measured = measured
        self.parts = {
            n: {key.split()[0]: s for key, s in measured["part"].items() if key.endswith(f" {n}")}
            for n in PART_TOKENS
        }
        (a, at_a), (b, at_b) = sorted((int(n), s) for n, s in measured["whole"].items())[-2:]
        # What each token costs and what each pair does.
        self.pair = (at_b / b - at_a / a) / (b - a)
        self.token = at_a / a - self.pair * a

    def whole(self, tokens):
        return tokens * (self.token + tokens * self.pair)

    def own(self, part):
        return between(self.measured["own"], part)

    def part(self, rows, part):
        lower = max(n for n in PART_TOKENS if n <= part)
        upper = min(n for n in PART_TOKENS if n >= part)
        at = [between(self.parts[n], rows) for n in (lower, upper)]
        share = 0 if lower == upper else (part - lower) / (upper - lower)
        return at[0] + share * (at[1] - at[0]) + between(self.measured["merge"], rows)


def simulate(costs, tokens, ranks, gigabits, part=None):
    """Efficiency."""
    # The longest that makes two for each rank, as far as that can be.
    part = part or next((n for n in (1024, 512) if tokens >= 2 * ranks * n), 256)
    speed = CORES * HEADS / ALL_HEADS
    count = -(-tokens // part)
    owners = [min(i % (2 * ranks), 2 * ranks - 1 - i % (2 * ranks)) for i in range(count)]
    own = [[i for i in range(count) if owners[i] == rank] for rank in range(ranks)]
    # All ranks take a round's steps at the same time, each sending two parts.
    step = 2 * part * LATENT_BYTES * 8 / (gigabits * 1e9) + MESSAGE_SECONDS
    ends = []
    for rank in range(ranks):
        now = len(own[rank]) * costs.own(part) / speed
        for key in range(count):
            rows = part * sum(i > key for i in own[rank])
            if rows == 0:
                break
            steps = (rank - owners[key]) % ranks
            arrival = step * (key // (2 * ranks) * (ranks - 1) + steps) if steps else 0
            now = max(now, arrival) + costs.part(rows, part) / speed
        ends.append(now)
    return costs.whole(tokens) / speed / (ranks * max(ends))


def draw(measured, output):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    costs = Costs(measured)
    figure, axes = plt.subplots(figsize=(7.5, 5))
    # Readable without colour vision.
    for (ranks, gigabits, style), color in zip(
        [(2, 10, "o-"), (4, 10, "o-"), (16, 10, "o-"), (64, 10, "o-"), (64, 1, "o:"), (64, 100, "o--")],
        ["#56b4e9", "#009e73", "#e69f00", "#0072b2", "#0072b2", "#0072b2"],
    ):
        lengths = [n for n in LENGTHS if n >= 256 * ranks]
        values = [simulate(costs, n, ranks, gigabits) for n in lengths]
        print(ranks, "ranks", gigabits, "Gbit/s", [f"{n // 1024}k {v:.2f}" for n, v in zip(lengths, values)])
        axes.plot(lengths, values, style, color=color, label=f"{ranks} ranks, {gigabits} Gbit/s")
    axes.set(xscale="log", ylim=(0, 1.05), xlabel="tokens of the prompt", ylabel="efficiency",
             title=f"One layer of {ALL_HEADS} heads spread over ranks of {CORES} cores, simulated")
    axes.set_xticks(LENGTHS, [f"{n // 1024}k" for n in LENGTHS])
    axes.minorticks_off()
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    figure.suptitle("costs of calls measured on one core: " + measured["cpu"].split("(")[0], fontsize=7)
    figure.tight_layout()
    figure.savefig(output, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["measure", "draw"])
    parser.add_argument("costs", nargs="?")
    parser.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()
    if arguments.what == "measure":
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump(measure(), file, indent=1)
            file.write("\n")
    else:
        with open(arguments.costs, encoding="utf-8") as file:
            draw(json.load(file), arguments.output)


if __name__ == "__main__":
    main()
