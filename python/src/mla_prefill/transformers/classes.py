# SPDX-License-Identifier: Apache-2.0
"""Which classes of transformers can be switched.

What is relied on is little, and looked for in the class itself, so that a release that
does it another way is refused instead of computing something else: ``expand_kv`` makes
keys and values of the latents that the cache holds, by ``kv_b_proj``, and ``forward``
hands them to the attention function and does nothing else with them. Where an indexer
chooses the keys, ``forward`` hands over what it chose, too (see `indexers`).
"""

import ast
import inspect
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import torch
import transformers

from mla_prefill.transformers.indexers import refusal_of_indexer, refusal_of_indexer_class

_DIMENSIONS = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_TYPES = torch.float32, torch.float16, torch.bfloat16
_TYPES_TEXT = "float32, float16 or bfloat16"


class MLAClass(NamedTuple):
    """A class that has a ``kv_b_proj``."""

    model: str
    name: str
    #: Why it is not served; None: it is.
    refusal: str | None


@cache
def refusal_of_class(kind: Any) -> str | None:
    """Why modules of a class cannot be switched; None: they can."""
    try:
        made = inspect.getsource(kind.__init__)
        forward = dedent(inspect.getsource(inspect.unwrap(kind.forward)))
        parameters = inspect.signature(kind.expand_kv).parameters
    except AttributeError:
        return "it has no expand_kv"
    except (OSError, TypeError):
        return "its source is not at hand"
    if "self.sinks" in made:
        return "it has attention sinks"
    if "self.sliding_window" in made:
        return "some of its layers have sliding windows"
    if len(parameters) != 3:
        return "its expand_kv takes other arguments than latents and keys with rope"
    if "ALL_ATTENTION_FUNCTIONS" not in forward or not _only_attends(ast.parse(forward)):
        return "its forward does more with expanded keys and values than attend to them"
    return refusal_of_indexer_class(kind, made, forward) if "self.indexer" in made else None


def refusal_of_module(module: Any) -> str | None:
    """The same of one module, with its weights."""
    kind: Any = type(module)
    reason = refusal_of_class(kind)
    if reason is not None:
        return reason
    lacking = [name for name in _DIMENSIONS if not isinstance(getattr(module, name, None), int)]
    if lacking:
        return f"it has no {', '.join(lacking)}"
    if getattr(module, "sliding_window", None) is not None:
        return f"sliding_window = {module.sliding_window}"
    devices = {str(weight.device) for weight in module.kv_b_proj.parameters()}
    if devices - {"cpu"}:
        return f"kv_b_proj is on {', '.join(sorted(devices))}: all weights must be on the CPU"
    dtype = next((each.dtype for each in module.parameters() if each.dtype in _TYPES), None)
    if dtype is None:
        return f"its weights are {next(module.parameters()).dtype}: some must be {_TYPES_TEXT}"
    if not _expands_as_assumed(module, dtype):
        return "its expand_kv is not kv_b_proj alone"
    return None if getattr(module, "indexer", None) is None else refusal_of_indexer(module, dtype)


def mla_classes() -> list[MLAClass]:
    """All of the installed version, by their models' names."""
    found = []
    folder = Path(transformers.__file__).parent / "models"
    for path in sorted(folder.glob("*/modeling_*.py")):
        source = path.read_text(encoding="utf-8")
        if "self.kv_b_proj =" not in source:
            continue
        model = path.parent.name
        module = import_module(f"transformers.models.{model}.{path.stem}")
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and "self.kv_b_proj =" in ast.unparse(node):
                refusal = refusal_of_class(getattr(module, node.name))
                found.append(MLAClass(model, node.name, refusal))
    return found


def table() -> str:
    """The above, for people to read."""
    rows = mla_classes()
    served = sum(row.refusal is None for row in rows)
    title = f"transformers {transformers.__version__}: enable() serves {served} of {len(rows)} MLA classes"
    lines = (
        f"  {row.model:<16}{row.name:<28}{'served' if row.refusal is None else row.refusal}"
        for row in rows
    )
    return "\n".join([title, *lines])


def _only_attends(forward: ast.AST) -> bool:
    """Whether what comes from ``expand_kv`` goes to ``attention(self, query, key, value, ...)``,
    and nothing else is asked of it but how many keys there are."""
    calls = [
        node
        for node in ast.walk(forward)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func) == "self.expand_kv"
    ]
    if len(calls) != 1 or not isinstance(calls[0].targets[0], ast.Tuple):
        return False
    names = [ast.unparse(target) for target in calls[0].targets[0].elts]
    attended = [
        argument
        for node in ast.walk(forward)
        if isinstance(node, ast.Call) and len(node.args) > 3 and ast.unparse(node.args[0]) == "self"
        for argument in node.args[2:4]
    ]
    used = [
        node
        for node in ast.walk(forward)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names
    ]
    counted = [
        node.value.value
        for node in ast.walk(forward)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "shape"
        and ast.unparse(node.slice) in ("2", "-2")
    ]
    return [ast.unparse(node) for node in attended] == names and all(
        any(node is allowed for allowed in (*attended, *counted)) for node in used
    )


def _expands_as_assumed(module: Any, dtype: torch.dtype) -> bool:
    """A trial: keys are, head by head, the first part of kv_b_proj's output and then rope's."""
    nope, rope = module.qk_nope_head_dim, module.qk_rope_head_dim
    generator = torch.Generator("cpu").manual_seed(0)
    latents, k_pe = (
        torch.randn(1, 1, 3, width, generator=generator, device="cpu").to(dtype)
        for width in (module.kv_lora_rank, rope)
    )
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        with torch.no_grad():
            keys, values = type(module).expand_kv(module, latents, k_pe)
            parts = module.kv_b_proj(latents)[0, 0].unflatten(1, (-1, nope + module.v_head_dim))
            nothing = module.kv_b_proj(torch.zeros_like(latents[0, 0, :1]))
    finally:
        for each in training:
            each.training = True
    parts = parts.transpose(0, 1)
    expected = torch.cat((parts[..., :nope], k_pe[0].expand(len(parts), -1, -1)), -1)
    return (
        torch.equal(keys[0], expected)
        and torch.equal(values[0], parts[..., nope:])
        and not bool(nothing.any())
    )
