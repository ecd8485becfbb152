import CMLAPrefill
import Glibc

extension Selector {
  /// The selector of this process: its registry, its CPU, its environment as it
  /// is now.
  public static func current() -> Selector {
    Selector(
      registry: .shared, servesZenCPU: Host.current.features.servesZenCPU,
      environmentChoice: getenv("MLA_PREFILL_BACKEND").map { String(cString: $0) })
  }
}

extension CPUFeatures {
  /// Whether the host is one that ZEN_CPU is for.
  var servesZenCPU: Bool {
    vendor == "AuthenticAMD" && bits & UInt32(MLA_CPU_AVX512_BF16) != 0
  }
}
