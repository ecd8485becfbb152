import MLACore
import MLAKernelABI
import MLATestSupport

extension KernelCase {
  /// Every kernel of every table that this host can run.
  static let onThisHost: [KernelCase] = all(upTo: KernelTables.host.family.rawValue)

  /// What the table holds for this case's format.
  var kernel: mla_attention_kernel {
    let table = KernelTables.table(cappedAt: isa).pointee
    return switch format {
    case .bfloat16: table.bf16
    case .float16: table.fp16
    default: table.fp32
    }
  }

  /// The bounds on the relative L2 error of `out`.
  var outBound: Double { Self.outBound(format) }

  static func outBound(_ format: ElementFormat) -> Double {
    switch format {
    case .bfloat16: 4e-3
    case .float16: 1.5e-3
    default: 2e-5
    }
  }

  /// On lse, absolute, for every format.
  static let lseBound = 2e-4
}
