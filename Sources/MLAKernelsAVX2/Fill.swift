import MLAKernelABI

/// Puts this module's kernels into a table, over those of weaker families.
@inline(never)
public func fillAVX2Kernels(_ table: UnsafeMutablePointer<mla_kernel_table>) {
  let kernel = attentionKernel(family: MLA_FAMILY_AVX2)
  let projection = projectionKernel(family: MLA_FAMILY_AVX2)
  table.pointee = mla_kernel_table(
    bf16: kernel, fp16: kernel, fp32: kernel, bf16_projection: projection,
    fp16_projection: projection, fp32_projection: projection, combine: combinePartials,
    convert: convertRows, quantize: quantizeRows)
}
