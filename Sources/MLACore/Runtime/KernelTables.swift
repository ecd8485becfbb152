import MLAKernelABI
import MLAKernelsPortable

#if arch(x86_64)
  import MLAKernelsAMX
  import MLAKernelsAVX2
  import MLAKernelsAVX512
  import MLAKernelsAVX512BF16
#elseif arch(arm64)
  import MLAKernelsNEON
  import MLAKernelsNEONBF16
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
  public static func table(cappedAt family: Int32) -> KernelTable { host.table(cappedAt: family) }

  init(upTo family: KernelFamily) {
    let tables = UnsafeMutablePointer<mla_kernel_table>.allocate(
      capacity: KernelFamily.allCases.count)
    var table = portableKernels()
    for (index, next) in KernelFamily.allCases.enumerated() where next <= family {
      table = Self.kernels(of: next, over: table)
      (tables + index).initialize(to: table)
    }
    self.tables = UnsafePointer(tables)
    self.family = family
  }

  func table(cappedAt cap: Int32) -> KernelTable {
    let allowed = KernelFamily(rawValue: cap).map(family.capped) ?? family
    return KernelTable(tables + Int(allowed.rawValue - KernelFamily.portable.rawValue))
  }

  private static func kernels(of family: KernelFamily, over weaker: mla_kernel_table)
    -> mla_kernel_table
  {
    switch family {
    case .portable: portableKernels()
    #if arch(x86_64)
      case .avx2: avx2Kernels()
      case .avx512: avx512Kernels()
      case .avx512BF16: avx512BF16Kernels(over: weaker)
      case .amx: amxKernels(over: weaker)
    #elseif arch(arm64)
      case .neon: neonKernels()
      case .neonBF16: neonBF16Kernels(over: weaker)
    #endif
    default: weaker
    }
  }
}
