import Foundation
import MLACore
import MLAKernelABI
import MLATestSupport

extension KernelCase {
  /// Every kernel of every table that this host can run, or of the table that
  /// MLA_TEST_TABLE names alone.
  static let onThisHost: [KernelCase] = {
    let cases = all(upTo: KernelTables.host.family.rawValue)
    guard let name = ProcessInfo.processInfo.environment["MLA_TEST_TABLE"] else { return cases }
    return cases.filter { $0.isaName == name }
  }()

  /// What the table holds for this case's format.
  var kernel: mla_attention_kernel { attention(of: table) }
  var projection: mla_projection_kernel { projection(of: table) }

  var index: mla_index_kernel { index(of: table) }

  var table: mla_kernel_table { KernelTables.table(cappedAt: isa).kernels }

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
