/// FLASH_ATTN (vLLM: flash_attn.FlashAttnPrefillBackend), and ROCM_AITER_FA
/// (aiter_flash_attn.AiterFlashAttnPrefillBackend), which is the same on the CPU:
/// FlashAttention's tile schedule, a work item is a request, a head and a query tile,
/// longest first.
struct FlashAttnContract: NativeContract {}
