import MLAKernelABI

extension mla_convert_args {
  /// Rows without scales of their own.
  init(
    rows: UnsafeRawPointer?, row_stride: Int64, num_rows: Int64, row_dim: Int64, format: Int32,
    out_format: Int32, multiplier: Float, out: UnsafeMutableRawPointer?, out_stride: Int64
  ) {
    self.init(
      rows: rows, row_stride: row_stride, num_rows: num_rows, row_dim: row_dim, format: format,
      out_format: out_format, multiplier: multiplier, out: out, out_stride: out_stride,
      scales: nil, scale_stride: 0, scale_group: 0)
  }
}
