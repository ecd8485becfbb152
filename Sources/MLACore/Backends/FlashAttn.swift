/// FLASH_ATTN (vLLM: flash_attn.FlashAttnPrefillBackend): FlashAttention's tile
/// schedule, a work item is a request, a head and a query tile, longest first.
struct FlashAttnContract: NativeContract {}
