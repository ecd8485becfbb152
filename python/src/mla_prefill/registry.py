# SPDX-License-Identifier: Apache-2.0
"""The registry of MLA prefill backends: the library's, seen as an enum.

Members appear and go as any language of the process registers and removes them.
"""

from collections.abc import Callable
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from mla_prefill import _core
from mla_prefill._adapter import BackendAdapter, resolve_class
from mla_prefill._members import REGISTERED, MLAPrefillBackendEnumMeta
from mla_prefill.configuration import MLAPrefillConfig

if TYPE_CHECKING:
    from mla_prefill.base import MLAPrefillBackend

Class = TypeVar("Class", bound=type)

#: What Python code has put behind a name and path. The library holds the adapters
#: as long as they are registered or run: what it drops disappears here.
_ADAPTERS: "WeakValueDictionary[tuple[str, str], BackendAdapter]" = WeakValueDictionary()


class MLAPrefillBackendEnum(Enum, metaclass=MLAPrefillBackendEnumMeta):
    """All MLA prefill backends; a member's value is the path of its own class."""

    FLASH_ATTN = "mla_prefill.flash_attn.FlashAttnPrefillBackend"
    FLASHINFER = "mla_prefill.flashinfer.FlashInferPrefillBackend"
    TRTLLM_RAGGED = "mla_prefill.trtllm_ragged.TrtllmRaggedPrefillBackend"
    TOKENSPEED_MLA = "mla_prefill.tokenspeed_mla.TokenspeedMLAPrefillBackend"
    ROCM_AITER_FA = "mla_prefill.aiter_flash_attn.AiterFlashAttnPrefillBackend"
    CPU = "mla_prefill.cpu_sdpa.CPUSDPAMLAPrefillBackend"
    ZEN_CPU = "mla_prefill.zen_cpu_sdpa.ZenCPUSDPAMLAPrefillBackend"
    #: No implementation until one is registered.
    CUSTOM = None

    @classmethod
    def register(cls, name: str, value: str) -> "MLAPrefillBackendEnum":
        """Adds a member.

        Args:
            name: new, a Python identifier that is no attribute of this class.
            value: the path of its class; "" where it is registered later.

        Raises:
            TypeError: an argument is no text; the error names it.
            ValueError: the name exists already, or it is invalid or reserved.
        """
        if _core.text(value, "value"):
            _hand_over(_core.register_backend, name, value, BackendAdapter(value))
        else:
            _core.register_backend(name, "", None, None)
        return cls._add_(name, value)

    def get_path(self) -> str:
        """The path of the class that serves this name, overrides respected.

        Raises:
            ValueError: CUSTOM, or another member without a class, before one is registered.
        """
        if self.value and not self.is_overridden():
            return self.value
        return _core.backend_path(self.name) or f"{REGISTERED}.{self.name}"

    def get_class(self) -> "type[MLAPrefillBackend]":
        """The class that serves this name, overrides respected.

        Raises:
            ImportError, AttributeError: there is no class at its path.
            ValueError: CUSTOM, or another member without a class, before one is registered.
        """
        path = self.get_path()
        adapter = _ADAPTERS.get((self.name, path))
        return resolve_class(path) if adapter is None else adapter.backend_class()

    def is_overridden(self) -> bool:
        """Whether something else than its own class serves this name."""
        return _core.is_overridden(self.name)

    def clear_override(self) -> None:
        """Goes back to the member's own class."""
        _core.clear_override(self.name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # By name: values of dynamic members need not be unique.
        try:
            path = self.get_path()
        except ValueError:
            path = ""
        return _unpickled_member, (self.name, self.value, path)


MLAPrefillBackendEnum._is_complete_ = True  # type: ignore[attr-defined]


def register_mla_prefill_backend(
    backend: MLAPrefillBackendEnum | str, class_path: str | None = None
) -> Callable[[Class], Class]:
    """Registers or overrides the implementation behind a name, for all languages.

    ::

        @register_mla_prefill_backend(MLAPrefillBackendEnum.CUSTOM)
        class Mine(MLAPrefillBackend): ...

        @register_mla_prefill_backend("MINE")  # a new name
        class Mine(MLAPrefillBackend): ...

        register_mla_prefill_backend("MINE", "my.module.Mine")

    Args:
        backend: a member, or a new name.
        class_path: the path of the class; None: the class that the result decorates.

    Returns:
        A decorator for the class; with ``class_path`` one that does nothing.

    Raises:
        TypeError: an argument of another type; the text names it.
        ValueError: a name that exists already, or is invalid or reserved.
    """
    if class_path is not None and not _core.text(class_path, "class_path"):
        raise ValueError("class_path = '': must be package.module.Class")
    name = _name(backend)
    if isinstance(backend, str):
        MLAPrefillBackendEnum.register(name, class_path or "")

    def decorator(cls: Class) -> Class:
        if not isinstance(cls, type):
            raise TypeError(f"cls: must be a class, not {type(cls).__name__}")
        path = f"{cls.__module__}.{cls.__qualname__}"
        _hand_over(_core.override_backend, name, path, BackendAdapter(cls), _name_of(cls))
        return cls

    if class_path is None:
        return decorator
    _hand_over(_core.override_backend, name, class_path, BackendAdapter(class_path))
    return lambda cls: cls


def remove_mla_prefill_backend(backend: MLAPrefillBackendEnum | str) -> None:
    """Removes a member that was registered by a new name; the name is free again.

    Objects that exist already live on.

    Args:
        backend: the member or its name.

    Raises:
        TypeError: an argument of another type; the text names it.
        ValueError: there is no such member, or it is one of the library's own.
    """
    _core.remove_backend(_name(backend))


def _name(backend: Any) -> str:
    if isinstance(backend, MLAPrefillBackendEnum):
        return backend.name
    if not isinstance(backend, str):
        raise TypeError(
            "backend: must be a member of MLAPrefillBackendEnum or a name, not "
            + type(backend).__name__
        )
    return _core.text(backend, "backend")


class BackendInfo(NamedTuple):
    """One backend, judged by a configuration."""

    name: str
    #: What the backend calls itself.
    backend_name: str
    #: None where nothing is registered.
    class_path: str | None
    #: Whether it serves the configuration; if not, `reasons` say why.
    is_valid: bool
    reasons: tuple[str, ...]
    is_overridden: bool
    is_dynamic: bool
    #: Whether C code of this process can make one.
    is_runnable: bool


def backends(config: MLAPrefillConfig | None = None) -> list[BackendInfo]:
    """All backends of the process, in order of definition, judged by ``config``.

    Raises:
        TypeError: ``config`` is no MLAPrefillConfig, or a field of it has another type.
    """
    config = MLAPrefillConfig() if config is None else config
    if not isinstance(config, MLAPrefillConfig):
        raise TypeError(f"config: must be an MLAPrefillConfig, not {type(config).__name__}")
    rows = _core.backends(config.library_config())
    return [BackendInfo(**{**row, "class_path": _path_or_none(row["name"])}) for row in rows]


def _path_or_none(name: str) -> str | None:
    try:
        return MLAPrefillBackendEnum[name].get_path()
    except ValueError:
        return None


def _hand_over(
    function: Callable[..., None],
    name: str,
    path: str,
    adapter: BackendAdapter,
    backend_name: str | None = None,
) -> None:
    function(name, path, adapter, backend_name)
    _ADAPTERS[name, path] = adapter


def _name_of(cls: type) -> str | None:
    try:
        name = cls.get_name()  # type: ignore[attr-defined]
    except Exception:
        # A class without a name goes by the member's.
        return None
    return name if isinstance(name, str) else None


def _unpickled_member(name: str, value: str | None, path: str) -> MLAPrefillBackendEnum:
    """The member of that name; a dynamic one may have to be registered here first."""
    if name not in MLAPrefillBackendEnum.__members__ and path:
        try:
            # Importing the module may be what registers it.
            import_module(path.rpartition(".")[0])
        except ImportError:
            pass
        if name not in MLAPrefillBackendEnum.__members__:
            MLAPrefillBackendEnum.register(name, value or path)
    return MLAPrefillBackendEnum[name]
