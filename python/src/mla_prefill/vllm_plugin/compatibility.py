# SPDX-License-Identifier: Apache-2.0
"""Whether this vLLM is as the plug-in knows it: asked before anything is served."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from inspect import Parameter, isroutine, signature
from typing import Any

_MANY = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def call_differences(theirs: Callable[..., Any], ours: Callable[..., Any]) -> list[str]:
    """Why a call that vLLM makes of its own could not be one of ours; empty if it could.

    Args:
        theirs: what vLLM calls, as it stands in vLLM.
        ours: what stands in its place.
    """
    name = theirs.__qualname__
    called, taken = _parameters(theirs), _parameters(ours)
    found = [f"{name} takes {parameter}" for parameter in called if parameter not in taken]
    for parameter, kind in taken.items():
        if parameter not in called and kind.default is Parameter.empty:
            found.append(f"{name} does not take {parameter}")
    shared = [parameter for parameter in taken if parameter in called]
    if not found and shared != list(called):
        found.append(f"{name} takes its arguments in another order")
    return found


def class_differences(theirs: type, ours: type) -> list[str]:
    """The same of all that vLLM's class lets others call."""
    found = []
    for name, attribute in vars(theirs).items():
        is_called = isroutine(attribute) or isinstance(attribute, classmethod | staticmethod)
        if is_called and (name == "__init__" or not name.startswith("_")):
            if hasattr(ours, name):
                found += call_differences(getattr(theirs, name), getattr(ours, name))
            elif getattr(attribute, "__isabstractmethod__", False):
                found.append(f"{theirs.__qualname__} has {name}")
    return found


def missing_fields(kind: Any, names: Iterable[str]) -> list[str]:
    """Fields of one of vLLM's dataclasses that the plug-in reads and that are not there."""
    there = {field.name for field in fields(kind)}
    return [f"{kind.__qualname__} has no {name}" for name in names if name not in there]


def missing_parameters(function: Callable[..., Any], names: Iterable[str]) -> list[str]:
    """Parameters of one of vLLM's constructors, which become attributes, likewise."""
    there = _parameters(function)
    return [f"{function.__qualname__} takes no {name}" for name in names if name not in there]


def missing_assignments(function: Callable[..., Any], names: Iterable[str]) -> list[str]:
    """Attributes that one of vLLM's functions gives to objects of another class, likewise."""
    there = function.__code__.co_names
    return [f"{function.__qualname__} sets no {name}" for name in names if name not in there]


def _parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    parameters = signature(function).parameters
    return {name: kind for name, kind in parameters.items() if kind.kind not in _MANY}
