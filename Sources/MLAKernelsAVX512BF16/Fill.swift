import MLAKernelABI

/// Puts this module's kernels into a table, over those of weaker families. What combines,
/// converts and quantizes rows stays AVX512's: it would not gain by these instructions.
@inline(never)
public func fillAVX512BF16Kernels(_ table: UnsafeMutablePointer<mla_kernel_table>) {
  table.pointee.bf16 = attentionKernel(family: MLA_FAMILY_AVX512_BF16)
  table.pointee.bf16_projection = projectionKernel(family: MLA_FAMILY_AVX512_BF16)
}
