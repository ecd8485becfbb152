import CMLAPrefill
import Foundation
import MLAKernelABI
import XCTest

@testable import MLACore

final class RuntimeHostTests: XCTestCase {
  /// A family is never claimed without the features that name it.
  func testFeaturesAreMonotone() {
    let bits = Int(Host.current.features.bits)
    let needs: [(KernelFamily, Int)] = [
      (.avx2, MLA_CPU_AVX2 | MLA_CPU_FMA | MLA_CPU_F16C),
      (.avx512, MLA_CPU_AVX512F | MLA_CPU_AVX512BW | MLA_CPU_AVX512DQ | MLA_CPU_AVX512VL),
      (.avx512BF16, MLA_CPU_AVX512_BF16),
      (.amx, MLA_CPU_AMX_TILE | MLA_CPU_AMX_BF16),
      (.neon, MLA_CPU_ASIMD), (.neonBF16, MLA_CPU_BF16),
    ]
    for (family, features) in needs where family.isNative && Host.current.features.bestFamily >= family {
      XCTAssertEqual(bits & features, features, family.name)
    }
  }

  func testFeaturesAgreeWithTheOperatingSystem() throws {
    try XCTSkipIf(Host.current.features.model.contains("modelled"), "a model of a CPU has more")
    let text = try String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
    let line = text.split(separator: "\n").first {
      $0.hasPrefix("flags") || $0.hasPrefix("Features")
    }
    let flags = Set(try XCTUnwrap(line, "no flags").split(separator: " ").map(String.init))
    let names: [(String, Int)] = [
      ("avx2", MLA_CPU_AVX2), ("fma", MLA_CPU_FMA), ("f16c", MLA_CPU_F16C),
      ("avx512f", MLA_CPU_AVX512F), ("avx512bw", MLA_CPU_AVX512BW),
      ("avx512dq", MLA_CPU_AVX512DQ), ("avx512vl", MLA_CPU_AVX512VL),
      ("avx512_bf16", MLA_CPU_AVX512_BF16), ("amx_tile", MLA_CPU_AMX_TILE),
      ("amx_bf16", MLA_CPU_AMX_BF16), ("asimd", MLA_CPU_ASIMD),
      ("asimdhp", MLA_CPU_ASIMDHP), ("bf16", MLA_CPU_BF16),
    ]
    for (name, bit) in names {
      XCTAssertEqual(
        Int(Host.current.features.bits) & bit != 0, flags.contains(name), name)
    }
  }

  func testCapIsHonoured() {
    let best = Host(cap: nil).family
    for family in KernelFamily.allCases {
      // Another architecture's leave what every architecture has.
      let expected = family.isNative ? min(family, best) : .portable
      XCTAssertEqual(Host(cap: family.name).family, expected)
      XCTAssertNil(Host(cap: family.name).ignoredCap)
    }
    XCTAssertEqual(Host(cap: "avx9").family, best)
    XCTAssertEqual(Host(cap: "avx9").ignoredCap, "avx9")
    XCTAssertTrue(Host(cap: "avx9").summary.contains("MLA_MAX_ISA=avx9 ignored"))
    XCTAssertFalse(Host(cap: "portable").summary.contains("ignored"))
    XCTAssertEqual(Host(cap: "a\nb\u{7}ü" + String(repeating: "c", count: 99)).ignoredCap,
      "a?b??" + String(repeating: "c", count: 35))
    XCTAssertNil(Host(cap: "").ignoredCap)
  }

  func testTablesAreCapped() {
    let tables = KernelTables(upTo: Host(cap: nil).family)
    for cap in KernelFamily.allCases {
      let most = cap.isNative ? min(cap, tables.family) : .portable
      let table = tables.table(cappedAt: cap.rawValue).kernels
      for kernel in [table.bf16, table.fp16, table.fp32] {
        XCTAssertTrue((1...most.rawValue).contains(kernel.family), cap.name)
      }
    }
    XCTAssertEqual(
      tables.table(cappedAt: Int32(MLA_ISA_DEFAULT)),
      tables.table(cappedAt: tables.family.rawValue))
    XCTAssertEqual(KernelTables(upTo: .portable).table(cappedAt: 5).kernels.fp32.family, 1)
  }

  func testInfoAndSummary() {
    var info = Host.current.cpuInfo
    XCTAssertEqual(info.isa, Host.current.family.rawValue)
    let family = Host.current.family
    XCTAssertEqual(info.bf16_isa, family.rawValue)
    // BF16 instructions serve bf16 alone.
    let others = [.avx512BF16: .avx512, .neonBF16: .neon][family] ?? family
    XCTAssertEqual(info.fp16_isa, others.rawValue)
    XCTAssertEqual(info.fp32_isa, others.rawValue)
    XCTAssertGreaterThan(info.num_processors, 0)
    let vendor = withUnsafeBytes(of: &info.vendor) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    XCTAssertEqual(vendor, Host.current.features.vendor)
    XCTAssertTrue(Host.current.summary.contains(vendor))
    XCTAssertFalse(Host.current.summary.contains("\n"))
  }

  func testLookingForProcessorsLeavesNothingOpen() throws {
    let before = try openFiles()
    for _ in 0..<9 { _ = ProcessorSet.process }
    XCTAssertEqual(try openFiles(), before)
  }

  func testThreadCount() throws {
    defer { try? HostSettings.setThreads(0) }
    XCTAssertEqual(HostSettings.threads, min(HostLimits.processors, 1024))
    try HostSettings.setThreads(5)
    XCTAssertEqual(HostSettings.threads, 5)
    for wrong: Int32 in [-1, 1025, .min, .max] {
      XCTAssertThrowsError(try HostSettings.setThreads(wrong)) { error in
        XCTAssertEqual((error as? MLAError)?.status, mla_status(MLA_ERROR_INVALID_ARGUMENT))
        XCTAssertTrue("\(error)".contains("num_threads = \(wrong)"))
      }
    }
    XCTAssertEqual(HostSettings.threads, 5)
    try HostSettings.setThreads(0)
    XCTAssertEqual(HostSettings.threads, min(HostLimits.processors, 1024))
  }

  func testLogReachesTheCallback() throws {
    let lines = Guarded([String]())
    Log.warning("dropped")
    try Log.setCallback(
      { context, level, message in
        let lines = Unmanaged<Guarded<[String]>>.fromOpaque(context!).takeUnretainedValue()
        lines.withLock { $0.append("\(level) \(String(cString: message!))") }
      }, context: Unmanaged.passUnretained(lines).toOpaque())
    lines.withLock { $0 = [] }
    Log.debug("a")
    Log.info("b")
    Log.warning("c")
    try Log.setCallback(nil, context: nil)
    Log.warning("dropped")
    XCTAssertEqual(lines.withLock { $0 }, ["0 a", "1 b", "2 c"])
  }
}
