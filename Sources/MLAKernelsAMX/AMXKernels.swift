import MLAKernelABI

/// For a process that the operating system has granted tile data.
@inline(never)
public func amxKernels(over weaker: mla_kernel_table) -> mla_kernel_table {
  var table = weaker
  table.bf16 = attentionKernel(
    { packedBlockBytes(BFloat16Operands.self, $0) }, { scratchBytes(BFloat16Operands.self, $0) },
    pack: { packBlock(BFloat16Operands.self, $0) },
    attend: { attendTile(BFloat16Operands.self, $0) })
  table.fp16 = attentionKernel(
    { packedBlockBytes(Float16Operands.self, $0) }, { scratchBytes(Float16Operands.self, $0) },
    pack: { packBlock(Float16Operands.self, $0) },
    attend: { attendTile(Float16Operands.self, $0) })
  table.fp32 = attentionKernel(
    { packedBlockBytes(Float32Operands.self, $0) }, { scratchBytes(Float32Operands.self, $0) },
    pack: { packBlock(Float32Operands.self, $0) },
    attend: { attendTile(Float32Operands.self, $0) })
  table.bf16_rows = rowsKernel(
    rowBlock(BFloat16Operands.self), { rowsScratchBytes(BFloat16Operands.self, $0, $1) },
    attend: { attendRows(BFloat16Operands.self, $0) })
  table.fp16_rows = rowsKernel(
    rowBlock(Float16Operands.self), { rowsScratchBytes(Float16Operands.self, $0, $1) },
    attend: { attendRows(Float16Operands.self, $0) })
  table.fp32_rows = rowsKernel(
    rowBlock(Float32Operands.self), { rowsScratchBytes(Float32Operands.self, $0, $1) },
    attend: { attendRows(Float32Operands.self, $0) })
  table.bf16_projection = projectionKernel(
    { packedRowsBytes(BFloat16Operands.self, $0, $1) },
    packTokens: { packTokens(BFloat16Operands.self, $0) },
    packWeights: { packWeights(BFloat16Operands.self, $0) },
    project: { project(BFloat16Operands.self, $0) },
    projectBlock: { projectBlock(BFloat16Operands.self, $0) })
  table.fp16_projection = projectionKernel(
    { packedRowsBytes(Float16Operands.self, $0, $1) },
    packTokens: { packTokens(Float16Operands.self, $0) },
    packWeights: { packWeights(Float16Operands.self, $0) },
    project: { project(Float16Operands.self, $0) },
    projectBlock: { projectBlock(Float16Operands.self, $0) })
  table.fp32_projection = projectionKernel(
    { packedRowsBytes(Float32Operands.self, $0, $1) },
    packTokens: { packTokens(Float32Operands.self, $0) },
    packWeights: { packWeights(Float32Operands.self, $0) },
    project: { project(Float32Operands.self, $0) },
    projectBlock: { projectBlock(Float32Operands.self, $0) })
  // Those of fp16 and fp32 stay the weaker table's: an infinity times the parts of a number is
  // none where one of these is 0, and what a score may be off by leaves no room for products
  // that are left out.
  table.bf16_index = mla_index_kernel(
    family: family, key_block: Int64(indexBlock),
    packed_keys_bytes: { packedRowsBytes(BFloat16Operands.self, $0, $1) },
    packed_queries_bytes: { packedRowsBytes(BFloat16Operands.self, $0, $1) },
    pack_keys: { packWeights(BFloat16Operands.self, $0) },
    pack_queries: { packTokens(BFloat16Operands.self, $0) }, score: scoreKeys)
  return table
}

private let family = Int32(truncatingIfNeeded: MLA_FAMILY_AMX)

// C's function pointers know no generic parameters: each is spelled out above.

private func attentionKernel(
  _ packedBlockBytes: @convention(c) (mla_kernel_dims) -> Int64,
  _ scratchBytes: @convention(c) (mla_kernel_dims) -> Int64,
  pack: @convention(c) (UnsafePointer<mla_pack_args>) -> Void,
  attend: @convention(c) (UnsafePointer<mla_attend_args>) -> Void
) -> mla_attention_kernel {
  mla_attention_kernel(
    family: family, query_tile: Int64(queryTile), key_block: Int64(keyBlock),
    packed_block_bytes: packedBlockBytes, scratch_bytes: scratchBytes, pack: pack,
    attend: attend, enter: configureTiles, leave: releaseTiles)
}

private func rowsKernel(
  _ block: Int, _ scratchBytes: @convention(c) (mla_kernel_dims, Int64) -> Int64,
  attend: @convention(c) (UnsafePointer<mla_attend_rows_args>) -> Void
) -> mla_rows_kernel {
  mla_rows_kernel(
    family: family, row_block: Int64(block), scratch_bytes: scratchBytes, attend: attend)
}

private func projectionKernel(
  _ packedRowsBytes: @convention(c) (Int64, Int64) -> Int64,
  packTokens: @convention(c) (UnsafePointer<mla_pack_rows_args>) -> Void,
  packWeights: @convention(c) (UnsafePointer<mla_pack_rows_args>) -> Void,
  project: @convention(c) (UnsafePointer<mla_project_args>) -> Void,
  projectBlock: @convention(c) (UnsafePointer<mla_project_block_args>) -> Void
) -> mla_projection_kernel {
  mla_projection_kernel(
    family: family, packed_tokens_bytes: packedRowsBytes, packed_weights_bytes: packedRowsBytes,
    pack_tokens: packTokens, pack_weights: packWeights, project: project,
    project_block: projectBlock)
}
