import MLAKernelABI
import MLAKernelsPortable

#if arch(x86_64)
  import MLAKernelsAMX
  import MLAKernelsAVX2
  import MLAKernelsAVX512
  import MLAKernelsAVX512BF16
#endif

/// One table of kernels per family that the host runs, each the table of the
/// family below with what the family does better in its place. Built once;
/// never written again, never freed.
public struct KernelTables: @unchecked Sendable {
  private let tables: UnsafePointer<mla_kernel_table>
  /// The strongest family there is a table for.
  public let family: KernelFamily

  public static let host = KernelTables(upTo: Host.current.family)

  /// The host's table, no stronger than `family`: an MLA_ISA_* value, of which
  /// MLA_ISA_DEFAULT means no limit.
  public static func table(cappedAt family: Int32) -> UnsafePointer<mla_kernel_table> {
    host.table(cappedAt: family)
  }

  init(upTo family: KernelFamily) {
    let tables = UnsafeMutablePointer<mla_kernel_table>.allocate(
      capacity: KernelFamily.allCases.count)
    tables.initialize(repeating: mla_kernel_table(), count: KernelFamily.allCases.count)
    for (index, next) in KernelFamily.allCases.enumerated() where next <= family {
      if index > 0 { tables[index] = tables[index - 1] }
      Self.fill(tables + index, next)
    }
    self.tables = UnsafePointer(tables)
    self.family = family
  }

  func table(cappedAt cap: Int32) -> UnsafePointer<mla_kernel_table> {
    let index = cap > 0 ? min(cap, family.rawValue) : family.rawValue
    return tables + Int(index - KernelFamily.portable.rawValue)
  }

  private static func fill(_ table: UnsafeMutablePointer<mla_kernel_table>, _ family: KernelFamily) {
    switch family {
    case .portable: fillPortableKernels(table)
    #if arch(x86_64)
      case .avx2: fillAVX2Kernels(table)
      case .avx512: fillAVX512Kernels(table)
      case .avx512BF16: fillAVX512BF16Kernels(table)
      case .amx: fillAMXKernels(table)
    #else
      // No other architecture's CPU is of these families.
      case .avx2, .avx512, .avx512BF16, .amx: break
    #endif
    }
  }
}
