/// ROCM_AITER_FA (vLLM: aiter_flash_attn.AiterFlashAttnPrefillBackend): the
/// varlen tile schedule, as FLASH_ATTN on the CPU.
struct AiterFlashAttnContract: NativeContract {}
