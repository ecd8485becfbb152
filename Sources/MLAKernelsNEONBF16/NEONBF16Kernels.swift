import MLAKernelABI

/// What combines, converts and quantizes rows stays NEON's, and so do fp16 and fp32: it would not
/// gain by these instructions.
@inline(never)
public func neonBF16Kernels(over weaker: mla_kernel_table) -> mla_kernel_table {
  var table = weaker
  table.bf16 = attentionKernel(family: MLA_FAMILY_NEON_BF16)
  table.bf16_rows = rowsKernel(family: MLA_FAMILY_NEON_BF16)
  table.bf16_projection = projectionKernel(family: MLA_FAMILY_NEON_BF16)
  table.bf16_index = indexKernel(family: MLA_FAMILY_NEON_BF16)
  return table
}
