# SPDX-License-Identifier: Apache-2.0
"""The model that a command is about: by flags, or by its ``config.json``."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mla_prefill.cli.output import Refusal
from mla_prefill.configuration import HEAD_DIMENSIONS

#: Where configurations of models that see or hear keep the language model's.
_NESTED = ("text_config", "language_config", "llm_config")


@dataclass(frozen=True)
class Model:
    """What matters of it; as it is, DeepSeek's dimensions, 16 heads."""

    dtype: str = "bfloat16"
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    num_heads: int = 16

    @property
    def dimensions(self) -> dict[str, Any]:
        """Of its heads, by name."""
        return {name: getattr(self, name) for name in HEAD_DIMENSIONS}

    @property
    def heads(self) -> str:
        """Its dimensions as texts have them: 128/64/128."""
        return "/".join(map(str, self.dimensions.values()))


def add_model_arguments(parser: ArgumentParser) -> None:
    """The flags; what they say goes before what the file says."""
    default = Model()
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="config.json of a model with MLA (DeepSeek, GLM, Kimi, ...), or its folder",
    )
    parser.add_argument("--dtype", help=f"of queries and keys (default: {default.dtype})")
    for name, value in default.dimensions.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, metavar="N", help=f"(default: {value})")


def model_of(options: Namespace) -> Model:
    """
    Raises:
        Refusal: the file cannot be read, or is that of no model with MLA.
    """
    model = Model() if options.model is None else _of_file(options.model)
    names = ("dtype", *HEAD_DIMENSIONS, "num_heads")
    given = {name: getattr(options, name, None) for name in names}
    return replace(model, **{name: value for name, value in given.items() if value is not None})


def _of_file(path: str) -> Model:
    file = Path(path)
    try:
        if file.is_dir():
            file /= "config.json"
        whole = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refusal(f"--model: {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"--model: {file}: is no JSON: {error}") from None
    config = _language_model(whole)
    if config is None:
        raise Refusal(f"--model: {file}: has no {HEAD_DIMENSIONS[0]}: its attention is not MLA")
    numbers = {name: _integer(config, name, file) for name in HEAD_DIMENSIONS}
    numbers["num_heads"] = _integer(config, "num_attention_heads", file)
    dtype = next(
        (
            holder[name]
            for holder in (config, whole)
            for name in ("dtype", "torch_dtype")
            if isinstance(holder.get(name), str) and holder[name] != "auto"
        ),
        Model.dtype,
    )
    return Model(dtype, **numbers)


def _language_model(whole: Any) -> dict[str, Any] | None:
    """The part of a configuration that has an attention's dimensions."""
    if not isinstance(whole, dict):
        return None
    for config in (whole, *(whole.get(name) for name in _NESTED)):
        if isinstance(config, dict) and HEAD_DIMENSIONS[0] in config:
            return config
    return None


def _integer(config: dict[str, Any], name: str, file: Path) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refusal(
            f"--model: {file}: {name} = {json.dumps(value)}: must be an integer from 0 on"
        )
    return value
