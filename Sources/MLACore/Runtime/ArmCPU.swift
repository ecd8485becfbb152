#if arch(arm64)
  import CMLAPrefill
  import MLAShims

  /// What the operating system tells of a 64-bit Arm core.
  struct ArmCPU: HostCPU {
    /// AT_HWCAP and AT_HWCAP2.
    private let capabilities: (UInt64, UInt64)
    private let core: MIDR

    init(_ cpu: mla_arm_cpu) {
      capabilities = (cpu.hwcap, cpu.hwcap2)
      core = MIDR(bits: UInt32(truncatingIfNeeded: cpu.midr))
    }

    var publicFeatures: [(Int, Bool)] {
      [(MLA_CPU_ASIMD, hasASIMD), (MLA_CPU_ASIMDHP, hasASIMDHP), (MLA_CPU_BF16, hasBF16)]
    }

    var bestFamily: KernelFamily {
      guard runsNEONModules else { return .portable }
      return runsNEONBF16Modules ? .neonBF16 : .neon
    }

    /// Compiled for ARMv8-A itself.
    private var runsNEONModules: Bool { hasASIMD }

    /// Compiled for that and FEAT_BF16, nothing else of a later version.
    private var runsNEONBF16Modules: Bool { hasASIMD && hasBF16 }

    var vendor: String { core.isKnown ? core.designer : "" }
    var model: String { core.isKnown ? "\(core.name) r\(core.variant)p\(core.revision)" : "" }

    private var hasASIMD: Bool { capabilities.0 >> 1 & 1 == 1 }
    private var hasASIMDHP: Bool { capabilities.0 >> 10 & 1 == 1 }
    private var hasBF16: Bool { capabilities.1 >> 14 & 1 == 1 }
  }

  /// The register by which cores tell who they are.
  private struct MIDR {
    let bits: UInt32

    var isKnown: Bool { bits != 0 }
    var implementer: UInt32 { bits >> 24 }
    var variant: UInt32 { bits >> 20 & 0xf }
    var part: UInt32 { bits >> 4 & 0xfff }
    var revision: UInt32 { bits & 0xf }

    var designer: String {
      switch implementer {
      case 0x41: "ARM"
      case 0x46: "Fujitsu"
      case 0x48: "HiSilicon"
      case 0x4e: "NVIDIA"
      case 0x51: "Qualcomm"
      case 0x61: "Apple"
      case 0x6d: "Microsoft"
      case 0xc0: "Ampere"
      default: "vendor 0x\(String(implementer, radix: 16))"
      }
    }

    /// Of servers and of what development is done on; a number for the others.
    var name: String {
      switch (implementer, part) {
      case (0x41, 0xd03): "Cortex-A53"
      case (0x41, 0xd07): "Cortex-A57"
      case (0x41, 0xd08): "Cortex-A72"
      case (0x41, 0xd0b): "Cortex-A76"
      case (0x41, 0xd0c): "Neoverse-N1"
      case (0x41, 0xd40): "Neoverse-V1"
      // Azure's has a part of ARM's under an implementer of its own.
      case (0x41, 0xd49), (0x6d, 0xd49): "Neoverse-N2"
      case (0x41, 0xd4f): "Neoverse-V2"
      case (0x41, 0xd84): "Neoverse-V3"
      case (0x41, 0xd8e): "Neoverse-N3"
      case (0x61, 0x022), (0x61, 0x024), (0x61, 0x028): "M1 Icestorm"
      case (0x61, 0x023), (0x61, 0x025), (0x61, 0x029): "M1 Firestorm"
      case (0x61, 0x032), (0x61, 0x034), (0x61, 0x038): "M2 Blizzard"
      case (0x61, 0x033), (0x61, 0x035), (0x61, 0x039): "M2 Avalanche"
      case (0xc0, 0xac3): "Ampere-1"
      case (0xc0, 0xac4): "Ampere-1A"
      default: "part 0x\(String(part, radix: 16))"
      }
    }
  }
#endif
