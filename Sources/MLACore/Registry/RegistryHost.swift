import CMLAPrefill
import Glibc

extension Registry {
  /// The process has one; tests make their own.
  public static let shared = Registry()

  /// Chooses among these members for this CPU, by the environment as it is now.
  public var selector: Selector {
    Selector(
      registry: self, servesZenCPU: Host.current.features.servesZenCPU,
      environmentChoice: getenv("MLA_PREFILL_BACKEND").map { String(cString: $0) },
      cudaCapability: { CUDAProvider.capability })
  }
}

extension CPUFeatures {
  /// Whether the host is one that ZEN_CPU is for.
  var servesZenCPU: Bool {
    vendor == "AuthenticAMD" && bits & UInt32(MLA_CPU_AVX512_BF16) != 0
  }
}
