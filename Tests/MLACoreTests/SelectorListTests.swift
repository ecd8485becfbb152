import CMLAPrefill
import XCTest

@testable import MLACore

/// The list of members: one moment's snapshot, judged by one configuration.
final class SelectorListTests: XCTestCase {
  private let registry = Registry()
  /// Rows point into their list.
  private var lists: [BackendList] = []

  private static let deepSeek = SelectorConfig(dtype: .bfloat16, dimensions: .deepSeek)

  private func list(_ config: SelectorConfig? = deepSeek, zen: Bool = false) -> BackendList {
    let list = try! BackendList(Selector(registry: registry, servesZenCPU: zen), config)
    lists.append(list)
    return list
  }

  private func row(_ name: String, in list: BackendList) throws -> mla_backend_info {
    for index in 0..<Int32(list.count) {
      let info = try list.info(at: index)
      if String(cString: info.name) == name { return info }
    }
    return try XCTUnwrap(nil)
  }

  func testCPUList() throws {
    let list = list()
    XCTAssertEqual(list.count, 8)
    for index in 0..<Int32(6) {
      let info = try list.info(at: index)
      XCTAssertEqual(info.is_valid, 1)
      XCTAssertEqual(info.is_runnable, 1)
      XCTAssertEqual(String(cString: info.reasons), "")
      XCTAssertEqual(info.num_reasons, 0)
    }
    let zen = try row("ZEN_CPU", in: list)
    XCTAssertEqual(zen.is_valid, 0)
    XCTAssertEqual(String(cString: zen.backend_name), "ZEN_CPU_SDPA_MLA")
    XCTAssertEqual(try row("ZEN_CPU", in: self.list(zen: true)).is_valid, 1)
    let custom = try row("CUSTOM", in: list)
    XCTAssertNil(custom.class_path)
    XCTAssertEqual(custom.is_valid, 0)
    XCTAssertEqual(custom.is_runnable, 0)
    XCTAssertEqual(custom.num_reasons, 1)
    XCTAssertTrue(String(cString: custom.reasons).contains("must be registered before use"))
  }

  func testReasonsOneByOneAndJoined() throws {
    let list = list(
      SelectorConfig(
        dtype: .float32, dimensions: .deepSeek, platform: .cuda,
        capability: DeviceCapability(9, 0)))
    let info = try list.info(at: 1)
    XCTAssertEqual(info.num_reasons, 3)
    let reasons = try (0..<3).map { String(cString: try list.reason($0, at: 1)) }
    XCTAssertEqual(
      reasons,
      [
        "compute capability 9.0 not supported", "dtype torch.float32 not supported",
        "required dependencies not available",
      ])
    XCTAssertEqual(String(cString: info.reasons), reasons.joined(separator: "; "))
  }

  func testRegisteredRows() throws {
    try registry.register("PATH_ONLY", request(path: "a.B"))
    try registry.register("REFUSES", request(BackendProbe(reasons: ["one", "two"]), path: "c.D"))
    try registry.override("CPU", request(BackendProbe()))
    let list = list()
    let path = try row("PATH_ONLY", in: list)
    XCTAssertEqual(String(cString: path.class_path), "a.B")
    XCTAssertEqual([path.is_valid, path.is_runnable, path.is_dynamic, path.is_overridden], [1, 0, 1, 0])
    let refuses = try row("REFUSES", in: list)
    XCTAssertEqual(String(cString: refuses.reasons), "one; two")
    XCTAssertEqual(
      [refuses.is_valid, refuses.is_runnable, refuses.is_dynamic, refuses.is_overridden],
      [0, 1, 1, 0])
    let cpu = try row("CPU", in: list)
    XCTAssertNil(cpu.class_path)
    XCTAssertEqual(String(cString: cpu.backend_name), "CPU")
    XCTAssertEqual([cpu.is_valid, cpu.is_runnable, cpu.is_dynamic, cpu.is_overridden], [1, 1, 0, 1])
  }

  /// Whatever it has said before.
  func testValidateWithoutMemoryIsNoReason() throws {
    for said in ["", "none left"] {
      let probe = BackendProbe(validateStatus: MLA_ERROR_OUT_OF_MEMORY) { _ in
        if !said.isEmpty { LastError.set(said) }
      }
      try registry.override("CPU", request(probe))
      let selector = Selector(registry: registry, servesZenCPU: false)
      let error = mlaError { try BackendList(selector, Self.deepSeek) }
      XCTAssertEqual(error?.status, mla_status(MLA_ERROR_OUT_OF_MEMORY))
      XCTAssertEqual(error?.message, said.isEmpty ? "validate of a backend had no memory" : said)
    }
  }

  func testListWithoutAConfigurationJudgesNothing() throws {
    let probe = BackendProbe(reasons: ["never asked"])
    try registry.override("CPU", request(probe, path: "a.B"))
    let list = list(nil)
    XCTAssertEqual(list.count, 8)
    for index in 0..<Int32(list.count) {
      let info = try list.info(at: index)
      XCTAssertEqual([info.is_valid, info.num_reasons], [0, 0])
      XCTAssertEqual(String(cString: info.reasons), "")
    }
    XCTAssertEqual(String(cString: try row("CPU", in: list).class_path), "a.B")
    XCTAssertEqual(probe.validateCount, 0)
  }

  func testOverridesCanBeIgnored() throws {
    try registry.override("CPU", request(BackendProbe(reasons: ["refused"]), path: "a.B"))
    let selector = Selector(registry: registry, servesZenCPU: false)
    var config = Self.deepSeek
    config.backend = "CPU"
    XCTAssertNotNil(mlaError { try selector.select(config) })
    XCTAssertEqual(try row("CPU", in: list(config)).is_valid, 0)
    config.ignoresOverrides = true
    XCTAssertEqual(try selector.select(config), "CPU")
    let cpu = try row("CPU", in: list(config))
    XCTAssertEqual([cpu.is_valid, cpu.is_overridden], [1, 1])
    XCTAssertEqual(String(cString: cpu.class_path), BuiltInBackend.cpu.classPath)
    XCTAssertEqual(String(cString: cpu.backend_name), "CPU_SDPA_MLA")
  }

  func testListIsASnapshot() throws {
    try registry.register("MINE", request(path: "a.B"))
    let list = list()
    try registry.remove("MINE")
    XCTAssertEqual(list.count, 9)
    XCTAssertEqual(String(cString: try list.info(at: 8).name), "MINE")
    XCTAssertEqual(self.list().count, 8)
  }

  func testRowsThatAreNotThere() {
    let list = list()
    for index in [-1, 8, .max, .min] as [Int32] {
      XCTAssertEqual(
        mlaError { try list.info(at: index) }?.message,
        "index = \(index): must be at least 0 and below 8")
      XCTAssertNotNil(mlaError { try list.reason(0, at: index) })
    }
    XCTAssertEqual(
      mlaError { try list.reason(0, at: 0) }?.message, "reason = 0: must be at least 0 and below 0")
  }
}
