"""Draws what mla-bench, and peers.py and layer.py where they ran, have measured.

    python Tests/Bench/chart.py SPEED.json [--peers PEERS.json] [--layer LAYER.json] -o CHART.png

Left: the fraction of the instruction's rate, measured next to each sample, that
each kernel reaches on one request. Middle: causal TFLOP/s of our strongest bf16
kernel beside the plain OpenBLAS attention and the peers. Right: how many times
faster we are where the peers ran: attention of batches and of a chunk of context,
then the whole layer.
"""

import argparse
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

OURS = "libmlaprefill"
# Readable without colour vision, and in the same order everywhere.
COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000",
          "#f0e442"]


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def lengths(rows):
    return sorted({row["seq"] for row in rows})


def single_prompts(speed):
    return [row for row in speed["speed"] if row["requests"] == 1]


def own_kernels(rows):
    """Without the tables that took a dtype's kernel over from the one before."""
    first = {}
    for row in rows:
        first.setdefault((row["dtype"], row["peak_instruction"]), row["isa"])
    return [r for r in rows if first[r["dtype"], r["peak_instruction"]] == r["isa"]]


def draw_fractions(axes, speed):
    rows = own_kernels(single_prompts(speed))
    names = list(dict.fromkeys(f"{r['isa']}/{r['dtype']}" for r in rows))
    for name, color in zip(names, COLORS):
        mine = [r for r in rows if f"{r['isa']}/{r['dtype']}" == name]
        axes.plot([r["seq"] for r in mine], [r["fraction_of_peak"] for r in mine], "o-",
                  color=color, label=f"{name} ({mine[0]['peak_instruction']})")
    axes.set(xscale="log", ylim=(0, 1), xlabel="tokens", ylabel="fraction of the instruction's rate",
             title="Kernels against the rate measured in the same run")
    axes.set_xticks(lengths(rows), [str(s) for s in lengths(rows)])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def strongest_bf16(speed):
    """The rows of the last, that is the strongest, table with bf16 inputs."""
    rows = [r for r in single_prompts(speed) if r["dtype"] == "bf16"]
    return [r for r in rows if r["isa"] == rows[-1]["isa"]]


def contenders(speed, peers):
    """name -> {tokens: TFLOP/s}; everyone is compared within one run."""
    rows = strongest_bf16(speed)
    table = {OURS: {r["seq"]: r["median_tflops"] for r in rows}}
    table["OpenBLAS fp32"] = {
        r["seq"]: r["median_tflops"] / r["ratio_to_openblas"] for r in rows
        if r.get("ratio_to_openblas")}
    for row in peers["peers"] if peers else []:
        if row["contender"] != "ours" and "seq" in row:
            # Of another run: what carries over is the ratio to ours.
            ours = table[OURS].get(row["seq"])
            if ours:
                table.setdefault(row["contender"], {})[row["seq"]] = (
                    ours / row["times_slower_than_ours"])
    return table


def draw_contenders(axes, speed, peers):
    table = contenders(speed, peers)
    ticks = lengths(strongest_bf16(speed))
    width = 0.8 / len(table)
    for i, (name, values) in enumerate(table.items()):
        places = [j + (i - (len(table) - 1) / 2) * width for j, s in enumerate(ticks) if s in values]
        heights = [values[s] for s in ticks if s in values]
        bars = axes.bar(places, heights, width, color=COLORS[i], label=name)
        ratios = ["" if name == OURS else f"{table[OURS][s] / values[s]:.1f}x"
                  for s in ticks if s in values]
        axes.bar_label(bars, ratios, fontsize=7)
    axes.set_xticks(range(len(ticks)), [str(s) for s in ticks])
    axes.set(xlabel="tokens", ylabel="causal TFLOP/s",
             title=f"bf16, {speed['heads']} heads, {speed['threads']} threads "
                   f"(how many times {OURS} is faster)")
    axes.legend(fontsize=8)
    axes.grid(axis="y", alpha=0.3)


def draw_ratios(axes, rows):
    """One group of bars a case, one bar a peer; `rows` of peers.py or layer.py."""
    others = [row for row in rows if row["contender"] != "ours"]
    cases = list(dict.fromkeys(row["case"] for row in others))
    names = list(dict.fromkeys(row["contender"] for row in others))
    for name, color in zip(names, COLORS[1:]):
        mine = {row["case"]: row["times_slower_than_ours"] for row in others
                if row["contender"] == name}
        order = names.index(name) - (len(names) - 1) / 2
        places = [i + order * 0.8 / len(names) for i, case in enumerate(cases) if case in mine]
        bars = axes.barh(places, mine.values(), 0.8 / len(names), color=color, label=name)
        axes.bar_label(bars, [f"{ratio:.1f}" for ratio in mine.values()], fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel=f"times slower than {OURS}", title="Batches, context, whole layer")
    axes.legend(fontsize=8)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speed")
    parser.add_argument("--peers")
    parser.add_argument("--layer")
    parser.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()
    speed = load(arguments.speed)
    peers = load(arguments.peers) if arguments.peers else None
    ratios = [row for row in peers["peers"] if "seq" not in row] if peers else []
    if arguments.layer:
        ratios += [{**row, "case": "layer, " + row["case"]} for row in load(arguments.layer)["layer"]]
    panels = 3 if ratios else 2
    figure, axes = plt.subplots(1, panels, figsize=(6.5 * panels, 5))
    draw_fractions(axes[0], speed)
    draw_contenders(axes[1], speed, peers)
    if ratios:
        draw_ratios(axes[2], ratios)
    note = "; torch and vLLM by the ratio measured in a run of their own" if peers else ""
    figure.suptitle(speed["cpu"] + note, fontsize=9)
    figure.tight_layout()
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
