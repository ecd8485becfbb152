import CMLAPrefill
import MLAShims

/// What the CPU has and the operating system lets the process use.
public struct CPUFeatures: Sendable {
  /// Bits of MLA_CPU_*.
  public let bits: UInt32
  /// "GenuineIntel", "AuthenticAMD", "ARM", ...; "" where it is not known.
  public let vendor: String
  public let model: String
  /// The strongest family whose every instruction the host executes.
  public let bestFamily: KernelFamily

  /// - Parameter requestAMX: whether to ask the operating system for the tile
  ///   registers, which binds the process to larger signal stacks, or only
  ///   whether it would grant them.
  static func detect(requestAMX: Bool) -> CPUFeatures {
    #if arch(x86_64)
      return CPUFeatures(X86CPU(requestAMX: requestAMX))
    #elseif arch(arm64)
      return CPUFeatures(ArmCPU(mla_shim_arm_cpu()))
    #else
      return CPUFeatures(bits: 0, vendor: "", model: "", bestFamily: .portable)
    #endif
  }
}

/// What a CPU of either architecture tells of itself.
protocol HostCPU {
  /// Bits of MLA_CPU_*, and whether the process can use what they stand for.
  var publicFeatures: [(Int, Bool)] { get }
  var vendor: String { get }
  var model: String { get }
  /// A family needs what its module's -march lets the compiler use, which is
  /// more than what gives it its name; each needs the one below as well.
  var bestFamily: KernelFamily { get }
}

extension CPUFeatures {
  init(_ cpu: some HostCPU) {
    var bits: UInt32 = 0
    for (bit, isUsable) in cpu.publicFeatures where isUsable { bits |= UInt32(bit) }
    self.init(bits: bits, vendor: cpu.vendor, model: cpu.model, bestFamily: cpu.bestFamily)
  }
}
