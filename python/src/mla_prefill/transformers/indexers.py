# SPDX-License-Identifier: Apache-2.0
"""Which indexers the library can choose keys for.

What an indexer's class is looked at for: it takes the keys from the cache, and gives the
indices of the highest scores. How it scores them is tried out with `IndexScores`, which
see each step.
"""

import ast
import inspect
import sys
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import torch

from mla_prefill.transformers.selection import IndexSelection

_TOKENS = 2


def refusal_of_indexer_class(kind: Any, made: str, forward: str) -> str | None:
    """Why an attention's class cannot be served with the indexer it has; None: it can.

    Args:
        made: the source of its ``__init__``.
        forward: that of its ``forward``.
    """
    names = {
        ast.unparse(call.func)
        for node in ast.walk(ast.parse(dedent(made)))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.indexer"
        for call in ast.walk(node.value)
        if isinstance(call, ast.Call)
    }
    indexer: Any = getattr(sys.modules[kind.__module__], names.pop(), None) if names else None
    if names or indexer is None:
        return "which class its indexer has cannot be seen"
    try:
        source = ast.parse(dedent(inspect.getsource(inspect.unwrap(indexer.forward))))
    except (AttributeError, OSError, TypeError):
        return "its indexer's source is not at hand"
    if not _gives_highest(source):
        return "its indexer does more than give the keys with the highest scores"
    if not _hands_over(ast.parse(forward)):
        return "its forward does not tell attention which keys its indexer chose"
    return None


def refusal_of_indexer(module: Any, dtype: torch.dtype) -> str | None:
    """The same of one module's, by a trial."""
    indexer = module.indexer
    if not isinstance(vars(indexer).get("forward"), IndexSelection | None):
        return "its indexer's forward has been replaced"
    try:
        selected = IndexSelection(module).selected(**_inputs(indexer, dtype))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        return f"its indexer does not score keys as assumed: {error}"
    expected = torch.tensor([[[0, -1], [0, 1]]], dtype=torch.int32)[..., : indexer.index_topk]
    if indexer.index_topk == 1:
        expected, selected = expected[:, :1], selected[:, :1]
    return None if torch.equal(selected, expected) else "its indexer chooses other keys"


def _gives_highest(forward: ast.AST) -> bool:
    """Whether keys come from ``update_indexer`` and all it returns are ``topk``'s indices."""
    updates = [
        node
        for node in ast.walk(forward)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "cache.update_indexer"
    ]
    returned = [node.value for node in ast.walk(forward) if isinstance(node, ast.Return)]
    if len(updates) != 1 or len(returned) != 1 or returned[0] is None:
        return False
    value = returned[0]
    if isinstance(value, ast.Call) and ast.unparse(value).endswith(".to(torch.int32)"):
        assert isinstance(value.func, ast.Attribute)
        value = value.func.value
    return (
        isinstance(value, ast.Attribute)
        and value.attr == "indices"
        and isinstance(value.value, ast.Call)
        and ast.unparse(value.value.func).endswith(".topk")
    )


def _hands_over(forward: ast.AST) -> bool:
    """Whether ``attention(self, query, key, value, ...)`` is given ``indices``."""
    return any(
        keyword.arg == "indices"
        for node in ast.walk(forward)
        if isinstance(node, ast.Call) and len(node.args) > 3 and ast.unparse(node.args[0]) == "self"
        for keyword in node.keywords
    )


def _inputs(indexer: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments for its forward by their names."""
    generator = torch.Generator("cpu").manual_seed(0)

    def states(width: int) -> torch.Tensor:
        return torch.randn(1, _TOKENS, width, generator=generator, device="cpu").to(dtype)

    known: dict[str, Callable[[], Any]] = {
        "hidden_states": lambda: states(indexer.hidden_size),
        "q_resid": lambda: states(indexer.q_lora_rank),
        "position_embeddings": lambda: (states(indexer.qk_rope_head_dim),) * 2,
        "attention_mask": lambda: torch.ones(1, _TOKENS, _TOKENS, dtype=torch.bool).tril(),
        "position_ids": lambda: torch.arange(_TOKENS)[None],
        "cache": lambda: None,
    }
    names = list(inspect.signature(type(indexer).forward).parameters)[1:]
    return {name: known[name]() for name in names}
