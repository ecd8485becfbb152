import MLAKernelABI

/// A table of this module's kernels alone.
@inline(__always)
func kernelTable(family: Int) -> mla_kernel_table {
  let attention = attentionKernel(family: family)
  let rows = rowsKernel(family: family)
  let projection = projectionKernel(family: family)
  let index = indexKernel(family: family)
  return mla_kernel_table(
    bf16: attention, fp16: attention, fp32: attention, bf16_rows: rows, fp16_rows: rows,
    fp32_rows: rows, bf16_projection: projection, fp16_projection: projection,
    fp32_projection: projection, bf16_index: index, fp16_index: index, fp32_index: index,
    combine: combinePartials, merge: mergeRows, convert: convertRows, quantize: quantizeRows)
}
