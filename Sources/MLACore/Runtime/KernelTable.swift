import MLAKernelABI

/// The kernels that serve a host, or a cap on it.
public struct KernelTable: @unchecked Sendable, Equatable {
  /// Never written again, never freed.
  private let table: UnsafePointer<mla_kernel_table>

  init(_ table: UnsafePointer<mla_kernel_table>) { self.table = table }

  public var kernels: mla_kernel_table { table.pointee }

  func attention(for type: ElementType) -> mla_attention_kernel {
    switch type {
    case .bfloat16: table.pointee.bf16
    case .float16: table.pointee.fp16
    default: table.pointee.fp32
    }
  }

  func rows(for type: ElementType) -> mla_rows_kernel {
    switch type {
    case .bfloat16: table.pointee.bf16_rows
    case .float16: table.pointee.fp16_rows
    default: table.pointee.fp32_rows
    }
  }

  func projection(for type: ElementType) -> mla_projection_kernel {
    switch type {
    case .bfloat16: table.pointee.bf16_projection
    case .float16: table.pointee.fp16_projection
    default: table.pointee.fp32_projection
    }
  }

  func index(for type: ElementType) -> mla_index_kernel {
    switch type {
    case .bfloat16: table.pointee.bf16_index
    case .float16: table.pointee.fp16_index
    default: table.pointee.fp32_index
    }
  }

  func combine(_ args: mla_combine_args) {
    withUnsafePointer(to: args) { table.pointee.combine($0) }
  }

  func merge(_ args: mla_merge_rows_args) {
    withUnsafePointer(to: args) { table.pointee.merge($0) }
  }

  func convert(_ args: mla_convert_args) {
    withUnsafePointer(to: args) { table.pointee.convert($0) }
  }

  func quantize(_ args: mla_quantize_args) {
    withUnsafePointer(to: args) { table.pointee.quantize($0) }
  }
}

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
