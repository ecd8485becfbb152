from typing import Any

class HostTensor:
    def __init__(self, shape: list[int], dtype: int) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def __array_interface__(self) -> dict[str, Any]: ...
    def __dlpack__(
        self,
        *,
        stream: None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class SelectorConfig:
    def __init__(
        self,
        *,
        dtype: int,
        qk_nope_head_dim: Any,
        qk_rope_head_dim: Any,
        v_head_dim: Any,
        platform: Any,
        capability_major: Any,
        capability_minor: Any,
        batch_invariant: Any,
        ignore_overrides: bool,
        backend: Any,
    ) -> None: ...

class Backend:
    def __init__(
        self,
        name: str,
        *,
        num_heads: int,
        scale: float,
        kv_lora_rank: int,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        v_head_dim: int,
        ignore_override: bool,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    def prepare_metadata(
        self, query_start_loc: Any, chunks: list[tuple[int, Any, Any]]
    ) -> None: ...
    def run_prefill_new_tokens(
        self,
        q: Any,
        k: Any,
        v: Any,
        out: Any,
        lse: Any,
        output_scale: Any,
        is_new_out: bool = False,
        is_new_lse: bool = False,
    ) -> None: ...
    def run_prefill_context_chunk(
        self,
        index: int,
        query_start_loc: Any,
        cu_seq_lens: Any,
        q: Any,
        k: Any,
        v: Any,
        out: Any,
        lse: Any,
        is_new_out: bool = False,
        is_new_lse: bool = False,
    ) -> None: ...
    def supports_out(self) -> bool: ...
    def supports_quant_output(self, dtype: int) -> bool: ...
    def workspace_size(self) -> int: ...

class Layer:
    def __init__(
        self,
        *,
        num_heads: int,
        scale: float,
        kv_lora_rank: int,
        qk_nope_head_dim: int,
        qk_rope_head_dim: int,
        v_head_dim: int,
        kv_b_proj: Any,
        backend: str | None,
        dtype: int,
        cache_dtype: int,
        cache_scale: Any,
        workspace_bound: int,
        algorithm: int,
        cache_format: int,
        weight_scales: Any,
    ) -> None: ...
    def forward(
        self,
        *,
        q: Any,
        kv_c_normed: Any,
        k_pe: Any,
        kv_cache: Any,
        block_table: Any,
        query_start_loc: Any,
        context_lens: Any,
        out: Any,
        lse: Any,
        output_scale: Any,
        is_new_out: bool = False,
    ) -> None: ...
    def workspace_size(self, *, query_start_loc: Any, context_lens: Any) -> int: ...

def abi_version() -> int: ...
def integer(value: Any, name: str) -> int: ...
def flag(value: Any, name: str) -> bool: ...
def text(value: Any, name: str) -> str: ...
def backend_path(name: str) -> str | None: ...
def backends(config: SelectorConfig | None) -> list[dict[str, Any]]: ...
def clear_override(name: str) -> None: ...
def concat_and_cache_mla(
    *,
    kv_c_normed: Any,
    k_pe: Any,
    kv_cache: Any,
    slot_mapping: Any,
    cache_scale: Any,
    cache_format: int,
) -> None: ...
def cpu_features() -> dict[str, Any]: ...
def cpu_summary() -> str: ...
def describe(tensor: Any, name: str) -> tuple[tuple[int, ...], str]: ...
def dtype_name(dtype: int) -> str: ...
def dtype_of_name(name: str) -> int: ...
def get_num_threads() -> int: ...
def use_openmp_threads(enabled: Any) -> bool: ...
def is_overridden(name: str) -> bool: ...
def library_path() -> str | None: ...
def merge_attn_states(
    output: Any,
    prefix_output: Any,
    prefix_lse: Any,
    suffix_output: Any,
    suffix_lse: Any,
    output_lse: Any,
    prefill_tokens_with_context: int | None,
    output_scale: Any,
) -> None: ...
def override_backend(
    name: str, class_path: str | None, adapter: Any, backend_name: str | None
) -> None: ...
def plan_context_chunks(
    context_lens: Any,
    row_budget: int,
    block_size: int,
    query_start_loc: Any,
    max_context_chunk: int,
) -> list[dict[str, Any]]: ...
def register_backend(
    name: str, class_path: str | None, adapter: Any, backend_name: str | None
) -> None: ...
def remove_backend(name: str) -> None: ...
def select(config: SelectorConfig) -> str: ...
def set_num_threads(num_threads: int) -> None: ...
def trim() -> int: ...
def validate(name: str, config: SelectorConfig) -> list[str]: ...
def version() -> str: ...
