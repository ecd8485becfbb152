#if arch(x86_64)
  import CMLAPrefill
  import MLAShims

  /// The CPUID leaves that matter here, and which register files the operating
  /// system saves.
  struct X86CPU: HostCPU {
    let vendor: String
    let model: String
    let leaf1: mla_cpuid_registers
    let leaf7: mla_cpuid_registers
    let leaf7Subleaf1: mla_cpuid_registers
    let extended1: mla_cpuid_registers
    let savesYMM: Bool
    let savesZMM: Bool
    let savesTiles: Bool

    var publicFeatures: [(Int, Bool)] {
      [
        (MLA_CPU_AVX2, hasAVX2), (MLA_CPU_FMA, hasFMA), (MLA_CPU_F16C, hasF16C),
        (MLA_CPU_AVX512F, zmm(leaf7.ebx, 16)), (MLA_CPU_AVX512BW, zmm(leaf7.ebx, 30)),
        (MLA_CPU_AVX512DQ, zmm(leaf7.ebx, 17)), (MLA_CPU_AVX512VL, zmm(leaf7.ebx, 31)),
        (MLA_CPU_AVX512_BF16, zmm(leaf7Subleaf1.eax, 5)),
        (MLA_CPU_AMX_TILE, savesTiles && Self.bit(leaf7.edx, 24)),
        (MLA_CPU_AMX_BF16, savesTiles && Self.bit(leaf7.edx, 22)),
      ]
    }

    var bestFamily: KernelFamily {
      guard runsAVX2Modules else { return .portable }
      guard runsAVX512Modules else { return .avx2 }
      guard runsAVX512BF16Modules else { return .avx512 }
      guard runsAMXModules else { return .avx512BF16 }
      return .amx
    }

    private var runsAVX2Modules: Bool { hasAVX2 && hasFMA && hasF16C && Self.bit(leaf1.ecx, 23) }

    private var runsAVX512Modules: Bool {
      // F, DQ, CD, BW, VL; BMI1, BMI2; MOVBE; LZCNT.
      let foundation = [16, 17, 28, 30, 31, 3, 8].allSatisfy { Self.bit(leaf7.ebx, $0) }
      return savesZMM && foundation && Self.bit(leaf1.ecx, 22) && Self.bit(extended1.ecx, 5)
    }

    private var runsAVX512BF16Modules: Bool {
      // VNNI; BF16.
      zmm(leaf7.ecx, 11) && zmm(leaf7Subleaf1.eax, 5)
    }

    private var runsAMXModules: Bool {
      // VBMI, VBMI2, GFNI, BITALG, VPOPCNTDQ; IFMA; AVX-VNNI. The module is
      // compiled without FP16.
      let vectors = [1, 6, 8, 12, 14].allSatisfy { Self.bit(leaf7.ecx, $0) }
      return vectors && Self.bit(leaf7.ebx, 21) && Self.bit(leaf7Subleaf1.eax, 4) && savesTiles
        && Self.bit(leaf7.edx, 22)
    }

    private var hasAVX2: Bool { savesYMM && Self.bit(leaf7.ebx, 5) }
    private var hasFMA: Bool { savesYMM && Self.bit(leaf1.ecx, 12) }
    private var hasF16C: Bool { savesYMM && Self.bit(leaf1.ecx, 29) }

    private func zmm(_ register: UInt32, _ index: Int) -> Bool {
      savesZMM && Self.bit(register, index)
    }

    private static func bit(_ register: UInt32, _ index: Int) -> Bool { register >> index & 1 == 1 }

    private static func brand(_ extendedLeaves: UInt32) -> String {
      guard extendedLeaves >= 0x8000_0004 else { return "" }
      return text(
        (2...4).flatMap { leaf in
          let part = mla_shim_cpuid(0x8000_0000 + UInt32(leaf), 0)
          return [part.eax, part.ebx, part.ecx, part.edx]
        })
    }

    /// Four characters a register; CPUs pad with blanks and NULs.
    private static func text(_ registers: [UInt32]) -> String {
      let bytes = registers.flatMap { register in
        (0..<4).map { UInt8(truncatingIfNeeded: register >> (8 * $0)) }
      }
      let characters = bytes.prefix { $0 != 0 }.drop { $0 == UInt8(ascii: " ") }
      let end = characters.lastIndex { $0 != UInt8(ascii: " ") }
      return String(decoding: end.map { characters[...$0] } ?? [], as: UTF8.self)
    }
  }

  extension X86CPU {
    /// The one that this runs on.
    init(requestAMX: Bool) {
      let leaf0 = mla_shim_cpuid(0, 0)
      leaf1 = mla_shim_cpuid(1, 0)
      leaf7 = leaf0.eax >= 7 ? mla_shim_cpuid(7, 0) : mla_cpuid_registers()
      leaf7Subleaf1 = leaf7.eax >= 1 ? mla_shim_cpuid(7, 1) : mla_cpuid_registers()
      let extendedLeaves = mla_shim_cpuid(0x8000_0000, 0).eax
      extended1 =
        extendedLeaves >= 0x8000_0001 ? mla_shim_cpuid(0x8000_0001, 0) : mla_cpuid_registers()
      vendor = Self.text([leaf0.ebx, leaf0.edx, leaf0.ecx])
      model = Self.brand(extendedLeaves)

      let saved = Self.bit(leaf1.ecx, 27) ? mla_shim_xgetbv0() : 0
      savesYMM = saved & 0x6 == 0x6
      savesZMM = saved & 0xe6 == 0xe6
      let tileData: UInt32 = 18
      savesTiles =
        saved & 0x6_0000 == 0x6_0000 && Self.bit(leaf7.edx, 24)
        && (requestAMX ? mla_shim_request_xstate(tileData) : mla_shim_supports_xstate(tileData)) != 0
    }
  }
#endif
