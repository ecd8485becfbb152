import MLAKernelABI

/// Puts this module's kernels into a table, over those of weaker families. The
/// operating system must have granted tile data to the process.
///
/// fp32 is left to AVX-512.
@inline(never)
public func fillAMXKernels(_ table: UnsafeMutablePointer<mla_kernel_table>) {
  let family = Int32(truncatingIfNeeded: MLA_FAMILY_AMX)
  table.pointee.bf16 = mla_attention_kernel(
    family: family, query_tile: Int64(queryTile), key_block: Int64(keyBlock),
    packed_block_bytes: { packedBlockBytes(BFloat16Operands.self, $0) },
    scratch_bytes: { scratchBytes(BFloat16Operands.self, $0) },
    pack: { packBlock(BFloat16Operands.self, $0) },
    attend: { attendTile(BFloat16Operands.self, $0) }, enter: configureTiles,
    leave: releaseTiles)
  table.pointee.fp16 = mla_attention_kernel(
    family: family, query_tile: Int64(queryTile), key_block: Int64(keyBlock),
    packed_block_bytes: { packedBlockBytes(Float16Operands.self, $0) },
    scratch_bytes: { scratchBytes(Float16Operands.self, $0) },
    pack: { packBlock(Float16Operands.self, $0) },
    attend: { attendTile(Float16Operands.self, $0) }, enter: configureTiles,
    leave: releaseTiles)
  table.pointee.bf16_projection = mla_projection_kernel(
    family: family, packed_tokens_bytes: { packedRowsBytes(BFloat16Operands.self, $0, $1) },
    packed_weights_bytes: { packedRowsBytes(BFloat16Operands.self, $0, $1) },
    pack_tokens: { packTokens(BFloat16Operands.self, $0) },
    pack_weights: { packWeights(BFloat16Operands.self, $0) },
    project: { project(BFloat16Operands.self, $0) },
    project_block: { projectBlock(BFloat16Operands.self, $0) })
  table.pointee.fp16_projection = mla_projection_kernel(
    family: family, packed_tokens_bytes: { packedRowsBytes(Float16Operands.self, $0, $1) },
    packed_weights_bytes: { packedRowsBytes(Float16Operands.self, $0, $1) },
    pack_tokens: { packTokens(Float16Operands.self, $0) },
    pack_weights: { packWeights(Float16Operands.self, $0) },
    project: { project(Float16Operands.self, $0) },
    project_block: { projectBlock(Float16Operands.self, $0) })
}
