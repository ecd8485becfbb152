import MLAKernelABI

/// This module's attention kernel, ready for a table.
@inline(__always)
func attentionKernel(family: Int) -> mla_attention_kernel {
  mla_attention_kernel(
    family: Int32(truncatingIfNeeded: family), query_tile: Int64(queryTile),
    key_block: Int64(keyBlock), packed_block_bytes: packedBlockBytes, scratch_bytes: scratchBytes,
    pack: packBlock, attend: attendTile, enter: nil, leave: nil)
}

/// This module's projection kernel, likewise.
@inline(__always)
func projectionKernel(family: Int) -> mla_projection_kernel {
  mla_projection_kernel(
    family: Int32(truncatingIfNeeded: family), packed_tokens_bytes: packedTokensBytes,
    packed_weights_bytes: packedWeightsBytes, pack_tokens: packTokens, pack_weights: packWeights,
    project: project, project_block: projectBlock)
}
