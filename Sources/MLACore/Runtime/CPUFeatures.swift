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

#if arch(x86_64)
  extension CPUFeatures {
    init(_ cpu: X86CPU) {
      var bits: UInt32 = 0
      for (bit, isUsable) in cpu.publicFeatures where isUsable { bits |= UInt32(bit) }
      self.init(
        bits: bits, vendor: cpu.vendor, model: cpu.model, bestFamily: Self.bestFamily(cpu))
    }

    /// A family needs what its module's -march lets the compiler use, which is
    /// more than what gives it its name; each needs the one below as well.
    private static func bestFamily(_ cpu: X86CPU) -> KernelFamily {
      guard cpu.runsAVX2Modules else { return .portable }
      guard cpu.runsAVX512Modules else { return .avx2 }
      guard cpu.runsAVX512BF16Modules else { return .avx512 }
      guard cpu.runsAMXModules else { return .avx512BF16 }
      return .amx
    }
  }
#elseif arch(arm64)
  extension CPUFeatures {
    init(_ cpu: ArmCPU) {
      var bits: UInt32 = 0
      for (bit, isUsable) in cpu.publicFeatures where isUsable { bits |= UInt32(bit) }
      self.init(
        bits: bits, vendor: cpu.vendor, model: cpu.model, bestFamily: Self.bestFamily(cpu))
    }

    private static func bestFamily(_ cpu: ArmCPU) -> KernelFamily {
      guard cpu.runsNEONModules else { return .portable }
      return cpu.runsNEONBF16Modules ? .neonBF16 : .neon
    }
  }
#endif
