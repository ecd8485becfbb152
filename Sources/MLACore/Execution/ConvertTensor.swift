import MLAKernelABI

/// Copies a tensor [rows, heads, dim], times a number, into another of the same
/// shape, rounding to its dtype.
enum ConvertTensor {
  /// - Parameter maxISA: MLA_ISA_*: the strongest kernels allowed.
  static func run(
    _ source: TensorView, to target: TensorView, times multiplier: Float, maxISA: Int32
  ) {
    let table = KernelTables.table(cappedAt: maxISA)
    ParallelLoop.runRows(source.shape[0], heads: source.shape[1]) { rows, head in
      table.convert(
        mla_convert_args(
          rows: source.row(rows.lowerBound, head: head), row_stride: Int64(source.strides[0]),
          num_rows: Int64(rows.count), row_dim: Int64(source.shape[2]),
          format: source.type.rawValue, out_format: target.type.rawValue, multiplier: multiplier,
          out: target.row(rows.lowerBound, head: head), out_stride: Int64(target.strides[0])))
    }
  }
}
