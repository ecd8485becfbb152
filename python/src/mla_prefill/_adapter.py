# SPDX-License-Identifier: Apache-2.0
"""What stands between the library and a backend class written in Python.

The extension calls these methods from the library's callbacks, with numbers,
lists and borrowed tensors.
"""

from collections.abc import Iterable
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

from mla_prefill import _core, _devices, _tensors
from mla_prefill._dtypes import DType
from mla_prefill.configuration import MLADimensions, MLAPrefillSelectorConfig, Platform
from mla_prefill.metadata import ChunkedContextMetadata, ContextChunk, PrefillMetadata, longest

#: Whose tensors a backend written in Python may ask for.
_LIBRARIES = ("torch", "numpy")
#: Index, query_start_loc and cu_seq_lens.
Chunk = tuple[int, list[int], list[int]]


class DeviceCapability(NamedTuple):
    """A GPU's, as vLLM hands it to backend classes."""

    major: int
    minor: int


def resolve_class(path: str) -> type:
    """The class at ``package.module.Class``.

    Raises:
        ImportError: no such module.
        AttributeError: the module has no such class.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ImportError(f"'{path}' is not the path of a class: must be package.module.Class")
    return getattr(import_module(module), name)


def reasons_of(
    backend_class: Any, device_capability: Any, config: MLAPrefillSelectorConfig
) -> list[Any]:
    """Why a class does not serve a configuration; empty if it does.

    Raises:
        TypeError: what ``validate_configuration`` returned is no list of texts.
    """
    reasons = backend_class.validate_configuration(device_capability, config)
    # A text is a sequence of texts, too.
    if isinstance(reasons, (str, bytes)) or not isinstance(reasons, Iterable):
        raise TypeError(
            f"validate_configuration: the backend returned {type(reasons).__name__}, "
            "must be a list of reasons"
        )
    return list(reasons)


class BackendAdapter:
    """A backend class, or the path of one that is imported when it is needed."""

    __slots__ = ("__weakref__", "_class", "_path")

    def __init__(self, backend: type | str) -> None:
        self._class = None if isinstance(backend, str) else backend
        self._path = backend if isinstance(backend, str) else None

    def backend_class(self) -> type:
        if self._class is None:
            assert self._path is not None
            self._class = resolve_class(self._path)
        return self._class

    def validate(
        self,
        dtype: int,
        head_dimensions: dict[str, int],
        platform: int,
        capability_major: int,
        capability_minor: int,
        batch_invariant: bool,
    ) -> list[str]:
        try:
            backend_class: Any = self.backend_class()
        except ImportError:
            return ["ImportError"]
        capability = DeviceCapability(capability_major, capability_minor)
        config = MLAPrefillSelectorConfig(
            dtype=_tensors.library_dtype(dtype),
            mla_dimensions=MLADimensions(**head_dimensions),
            platform=Platform(platform),
            batch_invariant=batch_invariant,
        )
        return reasons_of(backend_class, capability if capability_major >= 0 else None, config)

    def supports_device(self, device_type: int) -> bool:
        # vLLM's own say nothing.
        supported = getattr(self.backend_class(), "supported_devices", (_devices.CPU,))
        return _devices.KINDS[device_type] in supported

    def create(self, arguments: dict[str, Any]) -> Any:
        backend = self.backend_class()(**arguments, vllm_config=None)
        _library_of(backend)
        return backend

    def prepare_metadata(
        self, backend: Any, query_start_loc: list[int], chunks: list[Chunk]
    ) -> None:
        library = _library_of(backend)
        announced = [_context_chunk(chunk, place, library) for place, chunk in enumerate(chunks)]
        backend.prepare_metadata(
            PrefillMetadata(
                query_start_loc=_tensors.offsets(query_start_loc, library),
                max_query_len=longest(query_start_loc),
                chunked_context=ChunkedContextMetadata(chunks=announced) if announced else None,
                prefill_backend=backend,
            )
        )

    def run_prefill_new_tokens(
        self,
        backend: Any,
        q: _core.HostTensor,
        k: _core.HostTensor,
        v: _core.HostTensor,
        out: _core.HostTensor,
        lse: _core.HostTensor | None,
        output_scale: float | None,
    ) -> None:
        library = _library_of(backend)
        with _devices.on_stream(q, library):
            target, lse_target = _tensors.viewed(out, library), _tensors.viewed(lse, library)
            optional = {} if output_scale is None else {"output_scale": output_scale}
            # A quantized run always has an out, as vLLM's have.
            if output_scale is not None or backend.supports_out():
                optional["out"] = target
            result = backend.run_prefill_new_tokens(
                q=_tensors.viewed(q, library),
                k=_tensors.viewed(k, library),
                v=_tensors.viewed(v, library),
                return_softmax_lse=lse is not None,
                **optional,
            )
            result, lse_result = _pair(result) if lse is not None else (result, None)
            _tensors.store("out", target, result)
            if lse is not None:
                _tensors.store("lse", lse_target, lse_result)

    def run_prefill_context_chunk(
        self,
        backend: Any,
        chunk: Chunk,
        q: _core.HostTensor,
        k: _core.HostTensor,
        v: _core.HostTensor,
        out: _core.HostTensor,
        lse: _core.HostTensor,
    ) -> None:
        library = _library_of(backend)
        with _devices.on_stream(q, library):
            target, lse_target = _tensors.viewed(out, library), _tensors.viewed(lse, library)
            result, lse_result = _pair(
                backend.run_prefill_context_chunk(
                    chunk=_context_chunk(chunk, chunk[0], library),
                    q=_tensors.viewed(q, library),
                    k=_tensors.viewed(k, library),
                    v=_tensors.viewed(v, library),
                    **({"out": target} if backend.supports_out() else {}),
                )
            )
            _tensors.store("out", target, result)
            _tensors.store("lse", lse_target, lse_result)

    def supports_out(self, backend: Any) -> bool:
        # Without it the adapter copies: to C code every backend writes into `out`.
        return True

    def supports_quant_output(self, backend: Any, dtype: int) -> bool:
        return bool(backend.supports_quant_output(DType(_core.dtype_name(dtype))))


def _pair(result: Any) -> Any:
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        kind = type(result).__name__
        raise TypeError(f"result: the backend returned {kind}, must be (out, lse)")
    return result


def _library_of(backend: Any) -> str | None:
    library = getattr(backend, "tensor_library", None)
    if library is None or library in _LIBRARIES:
        return library
    text = "must be 'torch', 'numpy' or None"
    if not isinstance(library, str):
        raise TypeError(f"tensor_library: {text}, not {type(library).__name__}")
    raise ValueError(f"tensor_library = {library!r}: {text}")


def _context_chunk(chunk: Chunk, index: int, library: str | None) -> ContextChunk:
    _, query_start_loc, cu_seq_lens = chunk
    seq_lens = [end - begin for begin, end in pairwise(cu_seq_lens)]
    return ContextChunk(
        index=index,
        query_start_loc=_tensors.offsets(query_start_loc, library),
        cu_seq_lens=_tensors.offsets(cu_seq_lens, library),
        seq_lens=_tensors.offsets(seq_lens, library),
        max_query_len=longest(query_start_loc),
        max_seq_len=max(seq_lens, default=0),
    )
