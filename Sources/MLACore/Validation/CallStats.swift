import CMLAPrefill
import MLAShims

/// One row of the counts.
public struct CallStats {
  private let entry: CallEntry
  private let kernel: CallKernel

  public static var count: Int { Int(MLA_CALL_ENTRIES) * Int(MLA_CALL_KERNELS) }

  public init(at index: Int32) throws(MLAError) {
    guard index >= 0, let entry = CallEntry(rawValue: index / Int32(MLA_CALL_KERNELS)) else {
      throw .invalid("index", index, "must be 0 to \(Self.count - 1), see mla_stats_size()")
    }
    self.entry = entry
    kernel = CallKernel(number: index % Int32(MLA_CALL_KERNELS))
  }

  public var row: mla_call_stats {
    let counts = mla_shim_call_counts(entry.rawValue, kernel.number)
    return mla_call_stats(
      struct_size: mla_call_stats.size, reserved: 0, entry: entry.name.cString,
      kernel: kernel.name.cString, calls: Int64(clamping: counts.calls),
      failures: Int64(clamping: counts.failures), tokens: Int64(clamping: counts.tokens),
      nanoseconds: Int64(clamping: counts.nanoseconds))
  }

  public static func reset() { mla_shim_reset_call_counts() }
}
