import MLAKernelABI

/// One kernel of one table. Tests and benchmark walk the same list, so that
/// nothing is tested and never measured, or measured and never tested.
public struct KernelCase: Sendable, CustomStringConvertible {
  /// MLA_ISA_* (= MLA_FAMILY_*) of the table.
  public let isa: Int32
  /// Format of q, k and v.
  public let format: ElementFormat

  public init(isa: Int32, format: ElementFormat) {
    self.isa = isa
    self.format = format
  }

  /// This architecture's.
  #if arch(arm64)
    public static let isaNames: [(isa: Int32, name: String)] = [
      (1, "portable"), (6, "neon"), (7, "neon_bf16"),
    ]
  #else
    public static let isaNames: [(isa: Int32, name: String)] = [
      (1, "portable"), (2, "avx2"), (3, "avx512"), (4, "avx512_bf16"), (5, "amx"),
    ]
  #endif

  public static var isas: [Int32] { isaNames.map(\.isa) }

  /// Every kernel that a host can run whose strongest table is `bestISA`.
  public static func all(upTo bestISA: Int32) -> [KernelCase] {
    isaNames.filter { $0.isa <= bestISA }.flatMap { table in
      ElementFormat.inputs.map { KernelCase(isa: table.isa, format: $0) }
    }
  }

  /// What a table holds for the format.
  public func attention(of table: mla_kernel_table) -> mla_attention_kernel {
    switch format {
    case .bfloat16: table.bf16
    case .float16: table.fp16
    default: table.fp32
    }
  }

  /// Likewise.
  public func projection(of table: mla_kernel_table) -> mla_projection_kernel {
    switch format {
    case .bfloat16: table.bf16_projection
    case .float16: table.fp16_projection
    default: table.fp32_projection
    }
  }

  /// Likewise.
  public func index(of table: mla_kernel_table) -> mla_index_kernel {
    switch format {
    case .bfloat16: table.bf16_index
    case .float16: table.fp16_index
    default: table.fp32_index
    }
  }

  /// Likewise.
  public func rows(of table: mla_kernel_table) -> mla_rows_kernel {
    switch format {
    case .bfloat16: table.bf16_rows
    case .float16: table.fp16_rows
    default: table.fp32_rows
    }
  }

  public var isaName: String { Self.isaNames.first { $0.isa == isa }?.name ?? "unknown" }

  public var description: String { "\(isaName)/\(format.name)" }
}
