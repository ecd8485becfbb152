# SPDX-License-Identifier: Apache-2.0
"""Which backend a model gets, and what speaks against the others.

The reasons are the library's own texts. The exit status is 1 where no backend is chosen.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from mla_prefill.cli.model import Model, add_model_arguments, model_of
from mla_prefill.cli.output import Refusal, write, write_json
from mla_prefill.configuration import MLAPrefillConfig, Platform
from mla_prefill.registry import BackendInfo
from mla_prefill.registry import backends as judged
from mla_prefill.selector import chosen_member

SUMMARY = "which backend a model gets, and why not the others"


def add_arguments(parser: ArgumentParser) -> None:
    """A model, a device, a wish."""
    add_model_arguments(parser)
    parser.add_argument(
        "--platform",
        choices=[platform.name.lower() for platform in Platform],
        default="auto",
        help="where the tensors are; auto: the CPU, or with a capability that of the GPUs that "
        "torch is for (default: %(default)s)",
    )
    parser.add_argument(
        "--device-capability", type=_capability, metavar="MAJOR.MINOR", help="of the GPU: 9.0, say"
    )
    parser.add_argument(
        "--backend", metavar="NAME", help="an explicit choice (default: MLA_PREFILL_BACKEND)"
    )
    parser.add_argument(
        "--batch-invariant", action="store_true", help="results must not depend on the batch"
    )
    parser.add_argument("--json", action="store_true", help="the same as a JSON object")


def run(options: Namespace) -> int:
    """0 if a backend is chosen, else 1."""
    model = model_of(options)
    config = MLAPrefillConfig(
        dtype=model.dtype,
        **model.dimensions,
        backend=options.backend,
        platform=Platform[options.platform.upper()],
        device_capability=options.device_capability,
        batch_invariant=options.batch_invariant,
    )
    try:
        rows = judged(config)
    except (TypeError, ValueError) as error:
        raise Refusal(str(error)) from None
    chosen, refusal = None, None
    try:
        chosen = chosen_member(config).name
    except ValueError as error:
        refusal = str(error)
    if options.json:
        write_json(_facts(model, rows, chosen, refusal))
    else:
        write("\n".join(_table(model, rows, chosen, refusal)))
    return 0 if chosen else 1


def _facts(
    model: Model, rows: list[BackendInfo], chosen: str | None, refusal: str | None
) -> dict[str, Any]:
    """Later versions add keys and change none."""
    return {
        "dtype": model.dtype,
        **model.dimensions,
        "chosen": chosen,
        "refusal": refusal,
        "backends": [row._asdict() for row in rows],
    }


def _table(
    model: Model, rows: list[BackendInfo], chosen: str | None, refusal: str | None
) -> list[str]:
    lines = [f"{model.dtype}, heads of {model.heads}"]
    lines += [f"  {row.name:<16}{_verdict(row, chosen)}" for row in rows]
    return lines if refusal is None else [*lines, f"none is chosen: {refusal}"]


def _verdict(row: BackendInfo, chosen: str | None) -> str:
    if row.name == chosen:
        return "chosen"
    return "supported" if row.is_valid else "; ".join(row.reasons)


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not all(part.isdecimal() and part.isascii() and len(part) < 6 for part in (major, minor)):
        raise ArgumentTypeError(f"{text!r}: must be MAJOR.MINOR, such as 9.0")
    return int(major), int(minor)
