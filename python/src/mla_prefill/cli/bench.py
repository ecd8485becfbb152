# SPDX-License-Identifier: Apache-2.0
"""How fast attention is on this machine: one causal prompt of several lengths.

FLOPs are those below the diagonal, times medians. The fraction is of what the machine's cores do
at the same moment when they carry out nothing but the instruction that the kernel consists of, on
registers: measured for ten milliseconds before and after each run, by as many threads. Where
torch is installed its scaled_dot_product_attention attends to the same tensors, values padded to
the queries' width beforehand, by as many threads of its own.
"""

import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from mla_prefill import _core, host
from mla_prefill.cli.bench_sides import (
    LibrarySide,
    Prompt,
    Side,
    Timing,
    TorchSide,
    backend_of,
    measure,
)
from mla_prefill.cli.model import Model, add_model_arguments, model_of
from mla_prefill.cli.output import Progress, Refusal, write, write_json
from mla_prefill.cli.plain_tensors import DTYPES

SUMMARY = "how fast attention is on this machine, in seconds"


def add_arguments(parser: ArgumentParser) -> None:
    """A model, lengths, how long it may take."""
    add_model_arguments(parser)
    parser.add_argument(
        "--num-heads",
        type=_number(1, 256),
        metavar="N",
        help=f"of queries, on this machine (default: {Model().num_heads})",
    )
    parser.add_argument(
        "--lengths",
        type=_number(1, 1 << 17),
        nargs="+",
        default=[512, 1024, 2048],
        metavar="TOKENS",
        help="of the prompts (default: 512 1024 2048)",
    )
    parser.add_argument(
        "--seconds",
        type=_number(1, 3600),
        default=12,
        metavar="N",
        help="in all, about; a length that takes longer is left out (default: %(default)s)",
    )
    parser.add_argument("--no-torch", action="store_true", help="without torch")
    parser.add_argument("--json", action="store_true", help="the same as a JSON object")


def run(options: Namespace) -> int:
    """Always 0."""
    model = model_of(options)
    if model.dtype not in DTYPES:
        raise Refusal(f"dtype = {model.dtype}: must be one of {', '.join(DTYPES)}")
    sides: list[Side] = [LibrarySide()]
    if not options.no_torch and TorchSide.is_installed():
        sides.append(TorchSide(host.get_num_threads()))
    lengths = sorted(set(options.lengths))
    progress = Progress(len(lengths) * len(sides))
    try:
        rows = _rows(model, lengths, sides, options.seconds, progress)
    except (MemoryError, TypeError, ValueError) as error:
        raise Refusal(str(error) or "there is not enough memory") from None
    finally:
        progress.end()
    found = _facts(model, rows, sides)
    if options.json:
        write_json(found)
    else:
        write("\n".join(_table(found)))
    return 0


def _rows(
    model: Model, lengths: list[int], sides: list[Side], seconds: float, progress: Progress
) -> list[dict[str, Any]]:
    """A length each, the shortest first."""
    end = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    for index, tokens in enumerate(lengths):
        prompt = Prompt(model, tokens)
        row: dict[str, Any] = {"tokens": tokens}
        for place, side in enumerate(sides):
            progress.step(f"{side.name}, {tokens} tokens")
            remaining = end - time.monotonic()
            # Of this length as much as of each of the others that are left.
            share = remaining / ((len(lengths) - index) * len(sides) - place)
            # From the length before: twice as long takes four times as long.
            expected = next((r[side.name] for r in reversed(rows) if r.get(side.name)), None)
            if expected and expected.seconds * (tokens / expected.tokens) ** 2 > remaining:
                continue
            row[side.name] = measure(side, prompt, share)
        rows.append(row)
    return rows


def _facts(model: Model, rows: list[dict[str, Any]], sides: list[Side]) -> dict[str, Any]:
    """Later versions add keys and change none."""
    instruction, _ = _core.instruction_rate(_core.dtype_of_name(model.dtype), 0)
    return {
        "version": _core.version(),
        "summary": host.cpu_summary(),
        "dtype": model.dtype,
        **model.dimensions,
        "num_heads": model.num_heads,
        "threads": host.get_num_threads(),
        "backend": backend_of(model).name,
        "instruction": instruction or None,
        "torch": next((side.version for side in sides if isinstance(side, TorchSide)), None),
        "lengths": [
            {"tokens": row["tokens"], **{side.name: _side(row.get(side.name)) for side in sides}}
            for row in rows
        ],
    }


def _side(timing: Timing | None) -> dict[str, Any] | None:
    """None where there was no time for it."""
    if timing is None:
        return None
    return {
        "seconds": timing.seconds,
        "runs": timing.runs,
        "tflops": timing.flops / timing.seconds * 1e-12,
        "instruction_tflops": timing.peak * 1e-12 if timing.peak else None,
        "fraction": timing.fraction,
    }


def _table(found: dict[str, Any]) -> list[str]:
    heads = "/".join(str(found[name]) for name in Model().dimensions)
    lines = [
        found["summary"],
        f"{found['dtype']}, {found['num_heads']} heads of {heads}, {found['threads']} threads, "
        f"backend {found['backend']}",
    ]
    if found["torch"]:
        lines.append(f"torch {found['torch']}: scaled_dot_product_attention")
    rate = f"of {found['instruction']}" if found["instruction"] else ""
    columns = ["tokens", "ms", "TFLOP/s", rate, *(["torch: ms", "times"] if found["torch"] else [])]
    lines.append(_line(columns))
    for row in found["lengths"]:
        here, there = row["mla_prefill"], row.get("torch")
        cells = [str(row["tokens"]), *(["-"] * (len(columns) - 1))]
        if here:
            cells[1:3] = f"{here['seconds'] * 1e3:.2f}", f"{here['tflops']:.3f}"
            cells[3] = f"{here['fraction']:.2f}" if here["fraction"] else ""
        if there:
            cells[4] = f"{there['seconds'] * 1e3:.2f}"
        if here and there:
            cells[5] = f"{there['seconds'] / here['seconds']:.1f}"
        lines.append(_line(cells))
    return lines


def _line(cells: list[str]) -> str:
    widths = (8, 10, 10, 16, 12, 8)
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=False)).rstrip()


def _number(lowest: int, highest: int) -> Any:
    def parsed(text: str) -> int:
        is_number = text.isdecimal() and text.isascii() and len(text) < 10
        if not is_number or not lowest <= int(text) <= highest:
            raise ArgumentTypeError(f"{text!r}: must be {lowest} to {highest}")
        return int(text)

    return parsed
