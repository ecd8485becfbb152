# SPDX-License-Identifier: Apache-2.0
"""The abstract base class of MLA prefill backends."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from mla_prefill import _devices
from mla_prefill._dtypes import DType, dtype_name, dtype_text
from mla_prefill.configuration import HEAD_DIMENSIONS, MLADimensions, MLAPrefillSelectorConfig

if TYPE_CHECKING:
    from typing_extensions import Self


MODEL_ARGUMENTS = ("num_heads", "scale", "kv_lora_rank", *HEAD_DIMENSIONS)


def model_arguments(holder: Any) -> dict[str, Any]:
    """What a backend or a layer is made with for a model, of one that has been made."""
    return {name: getattr(holder, name) for name in MODEL_ARGUMENTS}


class MLAPrefillBackend(ABC):
    """What computes the attention of prefill tokens.

    Subclass it and hand the class to ``register_mla_prefill_backend``: then the
    selector, C and C++ code of the process can choose and run it as well.

    Tensors are on one device, which is the CPU unless ``supported_devices`` says more,
    of torch, numpy or anything else with ``__dlpack__``:
    ``q`` and ``k`` ``[tokens, num_heads, qk_head_dim]``, ``v`` and outputs
    ``[tokens, num_heads, v_head_dim]``, the log-sum-exp ``[num_heads, tokens]``
    float32, natural logarithm. Requests follow each other along the tokens.
    """

    supported_dtypes: ClassVar[list[Any]] = [DType("float16"), DType("bfloat16")]
    #: Empty: all.
    supported_mla_dimensions: ClassVar[list[MLADimensions]] = []
    #: Whose tensors a run that C or C++ code starts hands in: "torch", "numpy", or
    #: None, which is torch where it has been imported, else numpy. They are views
    #: of memory that is the caller's: do not keep them after the run, nor write to q, k
    #: and v, which torch cannot forbid.
    tensor_library: ClassVar[str | None] = None
    #: Where runs that C or C++ code starts may have their tensors: "cpu", "cuda", "rocm".
    #: On a device they are torch's, the run's stream being torch's current one; where torch
    #: has not been imported or ``tensor_library`` is "numpy", bare objects with
    #: ``__dlpack__`` and the ``stream``: then outputs that a run does not write itself are
    #: copied by the array namespace of what it returns.
    supported_devices: ClassVar[tuple[str, ...]] = (_devices.CPU,)

    @staticmethod
    @abstractmethod
    def get_name() -> str:
        """What the backend calls itself."""
        raise NotImplementedError

    @classmethod
    def supports_compute_capability(cls, device_capability: Any) -> bool:
        """Whether it runs on a device of that capability; None: no GPU, or not known."""
        return True

    @classmethod
    def supports_dtype(cls, dtype: Any) -> bool:
        """Whether it takes q, k and v of that type (torch's, numpy's, or its name)."""
        return dtype_name(dtype) in [dtype_name(supported) for supported in cls.supported_dtypes]

    @classmethod
    def supports_mla_dimensions(cls, mla_dimensions: MLADimensions) -> bool:
        """Whether it serves a model of those head dimensions."""
        return not cls.supported_mla_dimensions or mla_dimensions in cls.supported_mla_dimensions

    @classmethod
    def is_available(cls) -> bool:
        """Whether what it depends on is there."""
        return True

    @classmethod
    def validate_configuration(
        cls, device_capability: Any, selector_config: MLAPrefillSelectorConfig
    ) -> list[str]:
        """Why it cannot serve a configuration; empty if it can."""
        reasons: list[str] = []
        if not cls.supports_compute_capability(device_capability):
            reasons.append(_capability_reason(device_capability))
        if not cls.supports_dtype(selector_config.dtype):
            reasons.append(f"dtype {dtype_text(selector_config.dtype)} not supported")
        if not cls.is_available():
            reasons.append("required dependencies not available")
        if not cls.supports_mla_dimensions(selector_config.mla_dimensions):
            reasons.append(cls._dimensions_reason(selector_config.mla_dimensions))
        return reasons

    @classmethod
    def _dimensions_reason(cls, mla_dimensions: MLADimensions) -> str:
        supported = cls.supported_mla_dimensions
        reason = f"Model does not have supported MLA dimensions (got {mla_dimensions}"
        if supported and mla_dimensions not in supported:
            reason += f"; supported: {', '.join(str(dimensions) for dimensions in supported)}"
        return reason + ")"

    def __init__(
        self,
        num_heads: int,
        scale: float,
        kv_lora_rank: int,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        v_head_dim: int,
        vllm_config: Any = None,
        device: Any = None,
    ) -> None:
        """
        Args:
            num_heads: query heads, of this rank's share of the model.
            scale: multiplies the scores before the softmax.
            kv_lora_rank: width of the compressed key-value cache.
            qk_nope_head_dim: dimensions of a head without a rotary embedding.
            qk_rope_head_dim: dimensions of a head with one.
            v_head_dim: dimensions of a value.
            vllm_config: kept for subclasses; the library reads its ``device_config`` alone.
            device: where the tensors of all runs are: "cpu", "cuda:1", torch's or alike;
                None: vLLM's, or the CPU.
        """
        self.num_heads = num_heads
        self.scale = scale
        self.kv_lora_rank = kv_lora_rank
        self.qk_nope_head_dim = qk_nope_head_dim
        self.qk_rope_head_dim = qk_rope_head_dim
        self.v_head_dim = v_head_dim
        self.vllm_config = vllm_config
        self.device = _devices.device_name(device, vllm_config)
        self._take_up()

    def _take_up(self) -> None:  # noqa: B027
        """What the library's own backends do with the arguments."""

    def clone(self) -> "Self":
        """A second object of the same configuration, without metadata."""
        # Subclasses of before there were devices do not know the keyword.
        device: dict[str, Any] = {} if self.device == _devices.CPU else {"device": self.device}
        return self.__class__(**model_arguments(self), vllm_config=self.vllm_config, **device)

    def supports_quant_output(self, quant_key: Any) -> bool:
        """Whether new-token runs can write output quantized by ``quant_key``."""
        return False

    def supports_out(self) -> bool:
        """Whether runs write into a caller's ``out`` and return it."""
        return False

    def prepare_metadata(self, prefill_metadata: Any) -> None:  # noqa: B027
        """Hands in the batch, before any run: a ``PrefillMetadata`` or alike."""
        self._prefill_metadata = prefill_metadata

    @abstractmethod
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

        Returns:
            The output, or ``(output, lse)`` with ``return_softmax_lse``.
        """
        raise NotImplementedError

    @abstractmethod
    def run_prefill_context_chunk(
        self, chunk: Any, q: Any, k: Any, v: Any, out: Any = None
    ) -> tuple[Any, Any]:
        """Attention, not masked, of some requests' new tokens to a chunk of their context.

        Returns:
            ``(output, lse)``.
        """
        raise NotImplementedError


def _capability_reason(device_capability: Any) -> str:
    if device_capability is None:
        return "device capability not available"
    return f"compute capability {device_capability.major}.{device_capability.minor} not supported"
