# SPDX-License-Identifier: Apache-2.0
"""Functions that torch.compile does not look into: it breaks its graph and calls them as they are.

What they do is native code, of which a trace would have nothing. Their own lines call the
extension's methods by the class: if a trace has begun in them before torch has been told, it
breaks there, and of a method of an object's it would lose the object.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from types import CodeType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_REASON = (
    "it is native code of mla_prefill, which has operators for whole graphs: "
    "import mla_prefill.torch_ops"
)
_codes: list[CodeType] = []


def untraced(function: Function) -> Function:
    """Marks a function as torch.compiler.disable() does, without torch and with no wrapper."""
    marked: Any = function
    marked._torchdynamo_disable, marked._torchdynamo_disable_msg = True, _REASON
    _codes.append(marked.__code__)
    return function


def tell_torch() -> None:
    """Once torch has been imported: it runs the marked functions' frames, and all that these
    call, as they are, instead of tracing each by itself after the break."""
    if not _codes or "torch" not in sys.modules:
        return
    try:
        frames = sys.modules["torch"]._C._dynamo.eval_frame
        skip = frames._FrameAction.SKIP
        strategy = frames._FrameExecStrategy(skip, skip)
        tell = frames.set_code_exec_strategy
    except AttributeError:
        return  # Another torch traces them and breaks at each call of the extension's.
    # Other threads may be at it as well.
    with suppress(IndexError):
        while True:
            tell(_codes.pop(), strategy)
