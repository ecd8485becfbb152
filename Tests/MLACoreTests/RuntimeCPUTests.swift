#if arch(x86_64)
  import XCTest

  @testable import MLACore

  /// What a CPU must have for a module to run: what the module is compiled for.
  final class RuntimeCPUTests: XCTestCase {
    /// CPUID.7.0's features that code for AMX may use, tiles and their bf16 aside.
    private static let ebx: [UInt32] = [3, 5, 8, 16, 17, 21, 28, 30, 31]
    private static let ecx: [UInt32] = [1, 6, 8, 11, 12, 14]
    private static let (tileBF16, float16, tiles): (UInt32, UInt32, UInt32) = (22, 23, 24)

    func testAMXNeedsEachFeatureOfItsModule() {
      XCTAssertEqual(Self.cpu().bestFamily, .amx)
      for bit in Self.ebx {
        let cpu = Self.cpu(ebx: Self.ebx.filter { $0 != bit })
        XCTAssertLessThan(cpu.bestFamily, .amx, "ebx \(bit)")
      }
      for bit in Self.ecx {
        let cpu = Self.cpu(ecx: Self.ecx.filter { $0 != bit })
        XCTAssertLessThan(cpu.bestFamily, .amx, "ecx \(bit)")
      }
      XCTAssertEqual(Self.cpu(edx: [Self.tiles]).bestFamily, .avx512BF16)
      XCTAssertEqual(Self.cpu(savesTiles: false).bestFamily, .avx512BF16)
    }

    /// A hypervisor may hide it; the module is compiled without.
    func testAMXDoesNotNeedFP16() {
      let bits = [Self.tiles, Self.tileBF16]
      XCTAssertEqual(Self.cpu(edx: bits).bestFamily, .amx)
      XCTAssertEqual(Self.cpu(edx: bits + [Self.float16]).bestFamily, .amx)
    }

    private static func cpu(
      ebx: [UInt32] = ebx, ecx: [UInt32] = ecx, edx: [UInt32] = [tiles, tileBF16],
      savesTiles: Bool = true
    ) -> CPUFeatures {
      func register(_ bits: [UInt32]) -> UInt32 { bits.reduce(0) { $0 | 1 << $1 } }
      return CPUFeatures(
        X86CPU(
          vendor: "", model: "",
          leaf1: .init(eax: 0, ebx: 0, ecx: register([12, 22, 23, 27, 29]), edx: 0),
          leaf7: .init(eax: 1, ebx: register(ebx), ecx: register(ecx), edx: register(edx)),
          leaf7Subleaf1: .init(eax: register([4, 5]), ebx: 0, ecx: 0, edx: 0),
          extended1: .init(eax: 0, ebx: 0, ecx: register([5]), edx: 0), savesYMM: true,
          savesZMM: true, savesTiles: savesTiles))
    }
  }
#elseif arch(arm64)
  import CMLAPrefill
  import XCTest

  @testable import MLACore

  final class RuntimeCPUTests: XCTestCase {
    private static let (asimd, asimdhp, bf16): (UInt64, UInt64, UInt64) = (1 << 1, 1 << 10, 1 << 14)

    func testTablesByCapabilities() {
      for (first, second, family): (UInt64, UInt64, KernelFamily) in [
        (0, 0, .portable), (0, Self.bf16, .portable), (Self.asimd, 0, .neon),
        (Self.asimd | Self.asimdhp, ~Self.bf16, .neon), (Self.asimd, Self.bf16, .neonBF16),
      ] {
        XCTAssertEqual(Self.cpu(first, second).bestFamily, family, "\(first) \(second)")
      }
      XCTAssertEqual(Self.cpu(Self.asimd, Self.bf16).bits, UInt32(MLA_CPU_ASIMD | MLA_CPU_BF16))
      XCTAssertEqual(Self.cpu(Self.asimdhp, 0).bits, UInt32(MLA_CPU_ASIMDHP))
    }

    func testNamesOfCores() {
      for (midr, vendor, model): (UInt64, String, String) in [
        (0x413f_d0c1, "ARM", "Neoverse-N1 r3p1"), (0x411f_d401, "ARM", "Neoverse-V1 r1p1"),
        (0x410f_d4f0, "ARM", "Neoverse-V2 r0p0"), (0x6d0f_d490, "Microsoft", "Neoverse-N2 r0p0"),
        (0xc00f_ac30, "Ampere", "Ampere-1 r0p0"), (0x611f_0231, "Apple", "M1 Firestorm r1p1"),
        (0x412f_d99f, "ARM", "part 0xd99 r2p15"), (0x531f_0010, "vendor 0x53", "part 0x1 r1p0"),
        (0, "", ""),
      ] {
        let cpu = Self.cpu(0, 0, midr)
        XCTAssertEqual(cpu.vendor, vendor)
        XCTAssertEqual(cpu.model, model)
      }
    }

    private static func cpu(_ first: UInt64, _ second: UInt64, _ midr: UInt64 = 0) -> CPUFeatures {
      CPUFeatures(ArmCPU(.init(hwcap: first, hwcap2: second, midr: midr)))
    }
  }
#endif
