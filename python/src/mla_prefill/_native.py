# SPDX-License-Identifier: Apache-2.0
"""Backends that the library runs: its own, and what C and C++ code has registered."""

import math
from typing import Any, ClassVar

from mla_prefill import _core, _devices, _tensors
from mla_prefill._dtypes import DType, dtype_code, with_dtype
from mla_prefill._untraced import tell_torch, untraced
from mla_prefill.base import MLAPrefillBackend, model_arguments
from mla_prefill.configuration import MLADimensions, MLAPrefillSelectorConfig, library_config, part
from mla_prefill.metadata import announced_chunks, chunk_by_index

#: vLLM: GroupShape.PER_TENSOR.
_PER_TENSOR = (-1, -1)
_ANY_DIMENSIONS = MLADimensions(qk_nope_head_dim=0, qk_rope_head_dim=0, v_head_dim=0)
_TYPES = ("float16", "bfloat16", "float32", "float8_e4m3fn")
#: The questions of which a subclass may answer some itself.
_RULES = (
    "supports_compute_capability",
    "supports_dtype",
    "supports_mla_dimensions",
    "is_available",
    "supported_dtypes",
    "supported_mla_dimensions",
)


class _SupportedTypes:
    """The class attribute ``supported_dtypes``, as the library answers it."""

    def __get__(self, instance: object, owner: "type[NativePrefillBackend]") -> list[DType]:
        return [DType(name) for name in _TYPES if owner.supports_dtype(name)]


class NativePrefillBackend(MLAPrefillBackend):
    """A backend of the library's by the registry's name of it."""

    #: The member of the registry.
    member_name: ClassVar[str]
    #: Whether the member's own implementation is meant, whatever overrides it: an
    #: override that derives from what it replaces must not find itself.
    is_own_implementation: ClassVar[bool] = True

    supported_dtypes = _SupportedTypes()

    @classmethod
    def _reasons(
        cls,
        dtype: Any = "bfloat16",
        mla_dimensions: MLADimensions = _ANY_DIMENSIONS,
        device_capability: Any = None,
    ) -> list[str]:
        config = MLAPrefillSelectorConfig(dtype, mla_dimensions)
        return cls._reasons_against(config, device_capability)

    @classmethod
    def _reasons_against(
        cls, selector_config: MLAPrefillSelectorConfig, device_capability: Any
    ) -> list[str]:
        config = library_config(
            selector_config, device_capability, ignore_overrides=cls.is_own_implementation
        )
        return _core.validate(cls.member_name, config)

    @classmethod
    def supports_compute_capability(cls, device_capability: Any) -> bool:
        reasons = cls._reasons(device_capability=device_capability)
        return not any("capability" in reason for reason in reasons)

    @classmethod
    def supports_dtype(cls, dtype: Any) -> bool:
        declaring = next(base for base in cls.__mro__ if "supported_dtypes" in vars(base))
        if declaring is not NativePrefillBackend:
            return super().supports_dtype(dtype)
        return not any(reason.startswith("dtype ") for reason in cls._reasons(dtype=dtype))

    @classmethod
    def supports_mla_dimensions(cls, mla_dimensions: MLADimensions) -> bool:
        if not super().supports_mla_dimensions(mla_dimensions):
            return False
        reasons = cls._reasons(mla_dimensions=mla_dimensions)
        return not any("MLA dimensions" in reason for reason in reasons)

    @classmethod
    def is_available(cls) -> bool:
        return "required dependencies not available" not in cls._reasons()

    @classmethod
    def validate_configuration(
        cls, device_capability: Any, selector_config: MLAPrefillSelectorConfig
    ) -> list[str]:
        if cls._answers_itself():
            return super().validate_configuration(device_capability, selector_config)
        reasons = cls._reasons_against(selector_config, device_capability)
        return [with_dtype(reason, selector_config.dtype) for reason in reasons]

    @classmethod
    def _answers_itself(cls) -> bool:
        for base in cls.__mro__:
            if base is NativePrefillBackend:
                return False
            if any(rule in vars(base) for rule in _RULES):
                return True
        return False

    @untraced
    def _take_up(self) -> None:
        tell_torch()
        self._num_announced = 0
        device_type, device_id = _devices.device_pair(self.device)
        self._backend = _core.Backend(
            self.member_name,
            **model_arguments(self),
            ignore_override=self.is_own_implementation,
            device_type=device_type,
            device_id=device_id,
        )

    @untraced
    def supports_out(self) -> bool:
        return _core.Backend.supports_out(self._backend)

    @untraced
    def supports_quant_output(self, quant_key: Any) -> bool:
        # Only a static scale of the whole tensor can come as one number.
        scale = getattr(quant_key, "scale", None)
        if scale is not None and not (
            getattr(scale, "static", False)
            and tuple(getattr(scale, "group_shape", _PER_TENSOR)) == _PER_TENSOR
            and getattr(quant_key, "scale2", None) is None
        ):
            return False
        dtype = dtype_code(getattr(quant_key, "dtype", quant_key))
        return dtype != 0 and _core.Backend.supports_quant_output(self._backend, dtype)

    @untraced
    def warm_up(self) -> None:
        """Does ahead what a first run would wait for: on CPUs starts the threads; on CUDA
        devices has cuDNN's plans made for bf16 and fp16 tensors as vLLM has them, where there is a
        cuDNN that serves. Nothing for what C or C++ code has registered.
        """
        _core.Backend.warm_up(self._backend)

    @untraced
    def prepare_metadata(self, prefill_metadata: Any) -> None:
        """Hands in the batch, before any run.

        Args:
            prefill_metadata: has ``query_start_loc [num_requests + 1]``, a tensor or
                sequence of integers, and may have ``chunked_context.chunks`` with
                ``query_start_loc`` and ``cu_seq_lens`` each.

        Raises:
            TypeError, ValueError: the text names the field.
        """
        query_start_loc = part(prefill_metadata, "query_start_loc", "prefill_metadata")
        chunks = announced_chunks(prefill_metadata)
        _core.Backend.prepare_metadata(self._backend, query_start_loc, chunks)
        super().prepare_metadata(prefill_metadata)
        self._num_announced = len(chunks)

    @untraced
    def run_prefill_new_tokens(
        self,
        q: Any,
        k: Any,
        v: Any,
        return_softmax_lse: bool,
        out: Any = None,
        output_scale: Any = None,
    ) -> Any:
        """Causal attention of the batch's new tokens to themselves.

        Args:
            q: ``[tokens, num_heads, qk_head_dim]`` of bf16, fp16 or fp32.
            k: the same shape and type.
            v: ``[tokens, num_heads, v_head_dim]``; may be a view of wider rows.
            return_softmax_lse: whether to return the log-sum-exp as well.
            out: ``[tokens, num_heads, v_head_dim]`` to write into, known to be writable:
                JAX's arrays are not; None: a new tensor of q's kind, device and type, or of
                fp8 with an ``output_scale``. Of rows beyond the batch's last offset a new
                one is 0, a caller's is left alone, but by TRTLLM_RAGGED where no request
                has new tokens: then 0.
            output_scale: the output is divided by it; with a float8_e4m3fn ``out`` only
                and always: a number, or a tensor of one.

        Returns:
            ``out``, or ``(out, lse)`` with lse ``[num_heads, tokens]`` float32, natural
            logarithm, -inf for a token without keys and for rows beyond the batch.

        Raises:
            TypeError, ValueError: the text names the argument.
        """
        with_lse = _core.flag(return_softmax_lse, "return_softmax_lse")
        dtype = None if output_scale is None else _tensors.QUANTIZED
        result, lse = self._outputs(q, out, with_lse, dtype)
        _core.Backend.run_prefill_new_tokens(
            self._backend, q, k, v, result, lse, output_scale, out is None, self._stream(q)
        )
        result = _tensors.finished(q, result) if out is None else out
        return (result, _tensors.finished(q, lse)) if with_lse else result

    @untraced
    def run_prefill_context_chunk(
        self,
        chunk: Any = None,
        q: Any = None,
        k: Any = None,
        v: Any = None,
        out: Any = None,
        *,
        chunk_idx: int | None = None,
    ) -> tuple[Any, Any]:
        """Attention, not masked, of some requests' new tokens to a chunk of their context.

        Args:
            chunk: has ``query_start_loc`` and ``cu_seq_lens``, row offsets into q and
                into k and v. A number is a chunk of the batch's ``chunked_context``
                for all of its queries, as vLLM had it up to 0.27 (``chunk_idx``).
            q, k, v, out: as in ``run_prefill_new_tokens``, the chunk's rows.

        Returns:
            ``(out, lse)``.

        Raises:
            TypeError, ValueError: the text names the argument.
        """
        fields = self._chunk_fields(chunk, chunk_idx)
        result, lse = self._outputs(q, out, True)
        _core.Backend.run_prefill_context_chunk(
            self._backend, *fields, q, k, v, result, lse, out is None, self._stream(q)
        )
        return _tensors.finished(q, result) if out is None else out, _tensors.finished(q, lse)

    def _chunk_fields(self, chunk: Any, chunk_idx: Any) -> tuple[int, Any, Any]:
        if chunk is not None and chunk_idx is not None:
            raise TypeError("chunk_idx: must not be given beside a chunk")
        name, number = ("chunk", chunk) if chunk_idx is None else ("chunk_idx", chunk_idx)
        if chunk_idx is not None or hasattr(type(chunk), "__index__"):
            number = _core.integer(number, name)
            return chunk_by_index(getattr(self, "_prefill_metadata", None), number)
        index = getattr(chunk, "index", -1)
        if not isinstance(index, int) or index >= self._num_announced:
            index = -1
        return index, getattr(chunk, "query_start_loc", None), getattr(chunk, "cu_seq_lens", None)

    def _outputs(
        self, q: Any, out: Any, with_lse: bool, dtype: str | None = None
    ) -> tuple[Any, Any]:
        """Where a run writes; ``dtype`` None: the type of q, whose shapes the library checks."""
        if self.device != _devices.CPU:
            return self._outputs_on_device(q, out, with_lse, dtype)
        rows = _tensors.rows_of(q)
        if out is None:
            out = _tensors.empty(q, (rows, self.num_heads, self.v_head_dim), dtype)
        lse = _tensors.empty(q, (self.num_heads, rows), "float32") if with_lse else None
        return out, lse

    def _outputs_on_device(
        self, q: Any, out: Any, with_lse: bool, dtype: str | None
    ) -> tuple[Any, Any]:
        """As tokens without keys have them: nobody knows which rows a run writes."""
        rows = _devices.rows_of(q)
        if out is None:
            out = _devices.filled(q, (rows, self.num_heads, self.v_head_dim), dtype, 0)
        lse = None
        if with_lse:
            lse = _devices.filled(q, (self.num_heads, rows), "float32", -math.inf)
        return out, lse

    def _stream(self, q: Any) -> int | None:
        return None if self.device == _devices.CPU else _devices.current_stream(q)
