import MLAKernelABI

/// Puts this module's kernels into a table, over those of weaker families. The
/// operating system must have granted tile data to the process.
@inline(never)
public func fillAMXKernels(_ table: UnsafeMutablePointer<mla_kernel_table>) {
  table.pointee.bf16 = mla_attention_kernel(
    family: Int32(truncatingIfNeeded: MLA_FAMILY_AMX), query_tile: Int64(queryTile),
    key_block: Int64(keyBlock), packed_block_bytes: packedBlockBytes, scratch_bytes: scratchBytes,
    pack: packBlock, attend: attendTile, enter: configureTiles, leave: releaseTiles)
  table.pointee.bf16_projection = mla_projection_kernel(
    family: Int32(truncatingIfNeeded: MLA_FAMILY_AMX), packed_tokens_bytes: packedRowsBytes,
    packed_weights_bytes: packedRowsBytes, pack_tokens: packTokens, pack_weights: packWeights,
    project: project, project_block: projectBlock)
}
