import MLAKernelABI

/// Copies a tensor [rows, heads, dim], times a number, into another of the same
/// shape, rounding to its dtype.
enum ConvertTensor {
  /// - Parameter maxISA: MLA_ISA_*: the strongest kernels allowed.
  static func run(
    _ source: TensorView, to target: TensorView, times multiplier: Float, maxISA: Int32
  ) {
    let (rows, heads) = (source.shape[0], source.shape[1])
    let convert = KernelTables.table(cappedAt: maxISA).pointee.convert
    let chunks = (rows + rowsPerTask - 1) / rowsPerTask
    let tickets = TicketCounter()
    ParallelLoop.run(workers: min(HostSettings.threads, chunks * heads)) { _ in
      while let task = tickets.take(below: chunks * heads) {
        let (chunk, head) = task.quotientAndRemainder(dividingBy: heads)
        let first = chunk * rowsPerTask
        var args = mla_convert_args(
          rows: source.row(first, head: head), row_stride: Int64(source.strides[0]),
          num_rows: Int64(min(rowsPerTask, rows - first)), row_dim: Int64(source.shape[2]),
          format: source.type.rawValue, out_format: target.type.rawValue, multiplier: multiplier,
          out: target.row(first, head: head), out_stride: Int64(target.strides[0]))
        convert?(&args)
      }
    }
  }

  /// Few enough for an even finish, enough to outweigh taking a task.
  private static let rowsPerTask = 64
}
