# SPDX-License-Identifier: Apache-2.0
"""How the members of an enum are kept those of the library's registry."""

import os
from collections.abc import Iterator
from enum import EnumMeta
from threading import RLock
from types import MappingProxyType
from typing import Any

from mla_prefill import _core

#: Where the classes of backends live that C and C++ code has registered.
REGISTERED = "mla_prefill.registered"


class _Changes:
    """Of the members, one at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.renew()
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        # Finalizers and signal handlers may come in between and look members up. No call
        # into the library is made under it: that may log, and handlers have locks too.
        self.lock = RLock()


_CHANGES = _Changes()


class MLAPrefillBackendEnumMeta(EnumMeta):
    """Keeps the members those of the library, and names unknown ones as vLLM does."""

    def _sync_(cls) -> None:
        # While the class is being made there is nothing to compare.
        if "_is_complete_" not in cls.__dict__:
            return
        while True:
            count = _CHANGES.count
            rows = {row["name"]: row for row in _core.backends(None)}
            with _CHANGES.lock:
                # A list of before another thread's change would undo that.
                if _CHANGES.count == count:
                    return cls._follow_(rows)

    def _follow_(cls, rows: dict[str, dict[str, Any]]) -> None:
        for name in [name for name in cls._member_map_ if name not in rows]:
            cls._forget_(name)
        for name, row in rows.items():
            if name not in cls._member_map_:
                cls._add_(name, row["class_path"] or f"{REGISTERED}.{name}")

    def _add_(cls, name: str, value: str) -> Any:
        with _CHANGES.lock:
            # Also where it is known: lists of before its registration lack it.
            _CHANGES.count += 1
            known = cls._member_map_.get(name)
            # Another thread has seen it in the library first.
            if known is not None and known._value_ == value:
                return known
            # One of that name has been removed since, by whatever language.
            if known is not None:
                cls._forget_(name)
            return cls._make_(name, value)

    def _make_(cls, name: str, value: str) -> Any:
        member: Any = object.__new__(cls)  # type: ignore[arg-type]
        member._name_ = name
        member._value_ = value
        type.__setattr__(cls, name, member)
        cls._member_map_[name] = member
        cls._member_names_.append(name)
        # Members added by a decorator all have "" for a value: it names none of them.
        if value:
            cls._value2member_map_.setdefault(value, member)
        return member

    def _forget_(cls, name: str) -> None:
        _CHANGES.count += 1
        member = cls._member_map_.pop(name)
        cls._member_names_.remove(name)
        if cls._value2member_map_.get(member._value_) is member:
            del cls._value2member_map_[member._value_]
        type.__delattr__(cls, name)

    def __getitem__(cls, name: str) -> Any:
        cls._sync_()
        member = cls._member_map_.get(name)
        if member is None:
            # The library has the text.
            _core.is_overridden(str(name))
            raise KeyError(name)
        return member

    def __getattr__(cls, name: str) -> Any:
        if not name.startswith("_"):
            cls._sync_()
            member = cls.__dict__.get("_member_map_", {}).get(name)
            if member is not None:
                return member
        raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")

    def __delattr__(cls, name: str) -> None:
        super().__delattr__(name)
        if any(row["name"] == name and row["is_dynamic"] for row in _core.backends(None)):
            _core.remove_backend(name)

    def _snapshot_(cls) -> dict[str, Any]:
        """The members of this moment, in order."""
        cls._sync_()
        with _CHANGES.lock:
            return dict(cls._member_map_)

    def __iter__(cls) -> Iterator[Any]:
        return iter(cls._snapshot_().values())

    def __reversed__(cls) -> Iterator[Any]:
        return reversed(cls._snapshot_().values())

    def __len__(cls) -> int:
        return len(cls._snapshot_())

    @property
    def __members__(cls) -> MappingProxyType[str, Any]:
        return MappingProxyType(cls._snapshot_())
