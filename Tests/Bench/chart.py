"""Draws what mla-bench, and peers.py and layer.py where they ran, have measured.

    python Tests/Bench/chart.py SPEED.json [--peers PEERS.json] [--layer LAYER.json] -o CHART.png

Left: the fraction of the instruction's rate, measured next to each sample, that
each kernel reaches on one request. Middle: how many times faster the strongest bf16
kernel is than the plain OpenBLAS attention and the peers, each compared within one
run. Right: the same for batches and a chunk of context, then for the whole layer.
"""

import argparse
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# Readable without colour vision.
COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#000000",
          "#f0e442"]
PEER_COLORS = {
    "OpenBLAS fp32": "#e69f00", "torch SDPA": "#cc79a7", "torch": "#cc79a7", "vLLM CPU": "#009e73",
    "vLLM AMX_MLA": "#56b4e9",
}
FACTORS = [1, 2, 3, 5, 10, 20, 50, 100]


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


def ratios_of_single_prompts(speed, peers):
    """name -> {tokens: times slower than the strongest kernel}."""
    table = {"OpenBLAS fp32": {r["seq"]: r["ratio_to_openblas"] for r in strongest_bf16(speed)
                               if r.get("ratio_to_openblas")}}
    for row in peers["peers"] if peers else []:
        if row["contender"] != "ours" and "seq" in row:
            table.setdefault(row["contender"], {})[row["seq"]] = row["times_slower_than_ours"]
    return table


def draw_single_prompts(axes, speed, peers):
    ticks = lengths(strongest_bf16(speed))
    table = ratios_of_single_prompts(speed, peers)
    for name, ratios in table.items():
        axes.plot(ratios.keys(), ratios.values(), "o-", color=PEER_COLORS[name], label=name)
        longest = max(ratios)
        axes.annotate(f"{ratios[longest]:.1f}", (longest, ratios[longest]), fontsize=8,
                      textcoords="offset points", xytext=(6, -3))
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="times faster than",
             title=f"One prompt, bf16, {speed['heads']} heads, {speed['threads']} threads")
    axes.set_xticks(ticks, [str(s) for s in ticks])
    axes.set_yticks(FACTORS, [str(f) for f in FACTORS])
    axes.set_xlim(right=ticks[-1] * 1.6)
    axes.set_ylim(0.9, 1.3 * max(max(ratios.values()) for ratios in table.values()))
    axes.minorticks_off()
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def draw_ratios(axes, rows):
    """One group of bars a case, one bar a peer; `rows` of peers.py or layer.py."""
    others = [row for row in rows if row["contender"] != "ours"]
    cases = list(dict.fromkeys(row["case"] for row in others))
    names = list(dict.fromkeys(row["contender"] for row in others))
    for name in names:
        mine = {row["case"]: row["times_slower_than_ours"] for row in others
                if row["contender"] == name}
        order = names.index(name) - (len(names) - 1) / 2
        places = [i + order * 0.8 / len(names) for i, case in enumerate(cases) if case in mine]
        bars = axes.barh(places, mine.values(), 0.8 / len(names), color=PEER_COLORS[name],
                         label=name)
        axes.bar_label(bars, [f"{ratio:.1f}" for ratio in mine.values()], fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="times faster than", title="Batches, context, whole layer")
    axes.set_xticks(FACTORS, [str(f) for f in FACTORS])
    axes.set_xlim(right=1.3 * max(row["times_slower_than_ours"] for row in others))
    axes.minorticks_off()
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
    draw_single_prompts(axes[1], speed, peers)
    if ratios:
        draw_ratios(axes[2], ratios)
    figure.suptitle(speed["cpu"], fontsize=9)
    figure.tight_layout()
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
