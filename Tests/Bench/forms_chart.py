"""Draws what `mla-bench --forms` has measured: where the layer's absorbed form pays.

    python Tests/Bench/forms_chart.py FORMS.json -o CHART.png

For each number of heads: how many times faster the absorbed form is than the
up-projected one, over new tokens, a line for each context length. Filled points
are those where MLA_LAYER_ALGORITHM_AUTO takes the absorbed form: all above the
line at 1, and none below, is right.
"""

import argparse
import json

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from chart import COLORS  # noqa: E402


def gain(row):
    return row["up_projected_seconds"] / row["absorbed_seconds"]


def crossover(rows):
    """New tokens at which both forms take the same time, between two that were measured."""
    for a, b in zip(rows, rows[1:]):
        if gain(a) >= 1 > gain(b):
            share = (gain(a) - 1) / (gain(a) - gain(b))
            return a["new_tokens"] + share * (b["new_tokens"] - a["new_tokens"])
    return None


def draw(axes, rows, heads):
    contexts = sorted({row["context"] for row in rows})
    for context, color in zip(contexts, COLORS):
        mine = sorted((r for r in rows if r["context"] == context), key=lambda r: r["new_tokens"])
        meet = crossover(mine)
        label = f"context {context}" + (f": even at {meet:.0f}" if meet else "")
        axes.plot([r["new_tokens"] for r in mine], [gain(r) for r in mine], "-", color=color,
                  label=label)
        for row in mine:
            fill = color if row["auto_takes_absorbed"] else "white"
            axes.plot(row["new_tokens"], gain(row), "o", color=color, markerfacecolor=fill)
    axes.axhline(1, color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="new tokens", title=f"{heads} heads",
             ylabel="times faster than up-projected")
    ticks = sorted({row["new_tokens"] for row in rows})
    axes.set_xticks(ticks, [str(n) for n in ticks], fontsize=7, rotation=45)
    gains = [0.5, 1, 2, 5, 10, 20, 50]
    axes.set_yticks(gains, [str(n) for n in gains])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("forms")
    parser.add_argument("-o", "--output", required=True)
    arguments = parser.parse_args()
    with open(arguments.forms, encoding="utf-8") as file:
        report = json.load(file)
    last = report["forms"][-1]
    rows = [r for r in report["forms"] if (r["isa"], r["dtype"]) == (last["isa"], last["dtype"])]
    heads = sorted({row["heads"] for row in rows})
    figure, panels = plt.subplots(1, len(heads), figsize=(6.5 * len(heads), 5), squeeze=False)
    for axes, count in zip(panels[0], heads):
        draw(axes, [r for r in rows if r["heads"] == count], count)
    figure.suptitle(
        f"The layer in latent space, {last['dtype']}, one thread's processor time; filled: AUTO "
        f"takes it\n{report['cpu']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
