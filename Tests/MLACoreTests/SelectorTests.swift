import CMLAPrefill
import Synchronization
import XCTest

@testable import MLACore

/// Which backend is chosen, in which order they are tried, and what is said
/// when none fits.
final class SelectorTests: XCTestCase {
  private let registry = Registry()

  private func selector(zen: Bool = false, environment: String? = nil) -> Selector {
    Selector(registry: registry, servesZenCPU: zen, environmentChoice: environment)
  }

  private func config(
    _ platform: Platform = .cpu, _ capability: DeviceCapability? = nil,
    dimensions: MLADimensions = .deepSeek, dtype: ElementType? = .bfloat16, backend: String? = nil
  ) -> SelectorConfig {
    SelectorConfig(
      dtype: dtype, dimensions: dimensions, platform: platform, capability: capability,
      backend: backend)
  }

  /// The order in which backends are asked when each says no.
  private func triedBackends(_ config: SelectorConfig) throws -> [String] {
    let tried = Mutex<[String]>([])
    for backend in BuiltInBackend.allCases {
      let probe = BackendProbe(backend.name, reasons: ["not available"]) { name in
        tried.withLock { $0.append(name) }
      }
      try registry.override(backend.name, request(probe))
    }
    defer { for backend in BuiltInBackend.allCases { try? registry.override(backend.name, nil) } }
    do {
      return [try selector(zen: true).select(config)]
    } catch {
      return tried.withLock { $0 }
    }
  }

  func testPriorities() throws {
    let blackwell = DeviceCapability(10, 0)
    XCTAssertEqual(
      try triedBackends(config(.cuda, blackwell)),
      ["FLASH_ATTN", "TRTLLM_RAGGED", "FLASHINFER", "TOKENSPEED_MLA"])
    XCTAssertEqual(
      try triedBackends(config(.cuda, DeviceCapability(10, 3), dimensions: .glm5)),
      ["TRTLLM_RAGGED", "FLASH_ATTN", "FLASHINFER", "TOKENSPEED_MLA"])
    for capability in [(8, 0), (9, 0), (12, 0)] {
      XCTAssertEqual(
        try triedBackends(config(.cuda, DeviceCapability(Int32(capability.0), 0))),
        ["FLASH_ATTN"])
    }
    for capability in [DeviceCapability(9, 4), DeviceCapability(10, 0), nil] {
      XCTAssertEqual(
        try triedBackends(config(.rocm, capability)), ["ROCM_AITER_FA", "FLASH_ATTN"])
    }
    XCTAssertEqual(try triedBackends(config(.cpu, blackwell)), ["ZEN_CPU", "CPU"])
  }

  func testUnknownCUDACapabilityIsFlashAttnUnasked() throws {
    let probe = BackendProbe(reasons: ["never asked"])
    try registry.override("FLASH_ATTN", request(probe))
    XCTAssertEqual(try selector().select(config(.cuda)), "FLASH_ATTN")
    XCTAssertEqual(probe.validateCount, 0)
  }

  func testBackendsThatFitAreTakenInOrder() throws {
    let refuses = BackendProbe(reasons: ["no"])
    try registry.override("TRTLLM_RAGGED", request(refuses))
    try registry.override("FLASHINFER", request(BackendProbe()))
    try registry.override("TOKENSPEED_MLA", request(BackendProbe()))
    let blackwell = config(.cuda, DeviceCapability(10, 0), dimensions: .glm5)
    XCTAssertEqual(try selector().select(blackwell), "FLASHINFER")
    try registry.override("TRTLLM_RAGGED", nil)
    try registry.override("TRTLLM_RAGGED", request(path: "my.Backend"))
    XCTAssertEqual(try selector().select(blackwell), "TRTLLM_RAGGED")
  }

  func testCPUPrefersZenWhereItApplies() throws {
    for dtype in [ElementType.bfloat16, .float16, .float32] {
      XCTAssertEqual(try selector(zen: true).select(config(dtype: dtype)), "ZEN_CPU")
      XCTAssertEqual(try selector(zen: false).select(config(dtype: dtype)), "CPU")
    }
    try registry.override("ZEN_CPU", request(path: "plugin.Backend"))
    XCTAssertEqual(try selector(zen: false).select(config()), "ZEN_CPU")
  }

  func testCPUHonoursAnExplicitChoice() throws {
    for backend in BuiltInBackend.allCases {
      for dimensions in [.deepSeek, .glm5Next, MLADimensions(64, 32, 64), MLADimensions(0, 0, 0)] {
        let config = config(
          dimensions: dimensions, dtype: .float32, backend: backend.name)
        XCTAssertEqual(try selector(zen: true).select(config), backend.name)
      }
    }
    XCTAssertEqual(
      mlaError { try self.selector(zen: false).select(self.config(backend: "ZEN_CPU")) }?.message,
      "Selected MLA prefill backend ZEN_CPU is not valid for this configuration. "
        + "Reason: ['required dependencies not available']")
  }

  func testExplicitChoiceThatDoesNotFit() throws {
    let hopper = config(
      .cuda, DeviceCapability(9, 0), dtype: .float32, backend: "FLASHINFER")
    let error = mlaError { try self.selector().select(hopper) }
    XCTAssertEqual(error?.status, mla_status(MLA_ERROR_UNSUPPORTED_CONFIGURATION))
    XCTAssertEqual(
      error?.message,
      "Selected MLA prefill backend FLASHINFER is not valid for this configuration. Reason: "
        + "['compute capability 9.0 not supported', 'dtype torch.float32 not supported', "
        + "'required dependencies not available']")
  }

  func testReasonsAreQuotedAsPythonDoes() throws {
    let probe = BackendProbe(reasons: ["it's off", "both ' and \"", "back\\slash\n"])
    try registry.override("CUSTOM", request(probe))
    XCTAssertEqual(
      mlaError { try self.selector().select(self.config(backend: "CUSTOM")) }?.message,
      "Selected MLA prefill backend CUSTOM is not valid for this configuration. Reason: "
        + #"["it's off", 'both \' and "', 'back\\slash\n']"#)
  }

  func testNoneFits() {
    let error = mlaError {
      try self.selector().select(
        self.config(.rocm, DeviceCapability(9, 0), dimensions: MLADimensions(1, 2, 3)))
    }
    XCTAssertEqual(error?.status, mla_status(MLA_ERROR_UNSUPPORTED_CONFIGURATION))
    XCTAssertEqual(
      error?.message,
      "No valid MLA prefill backend found with MLAPrefillSelectorConfig(dtype=torch.bfloat16, "
        + "mla_dimensions=(qk_nope_head_dim=1, qk_rope_head_dim=2, v_head_dim=3)). Reasons: "
        + "{ROCM_AITER_FA: [compute capability 9.0 not supported, required dependencies not "
        + "available], FLASH_ATTN: [required dependencies not available, Model does not have "
        + "supported MLA dimensions (got (qk_nope_head_dim=1, qk_rope_head_dim=2, v_head_dim=3))]}."
    )
    XCTAssertEqual(
      mlaError { try self.selector().select(self.config(dtype: .float8E4M3)) }?
        .message,
      "No valid MLA prefill backend found with MLAPrefillSelectorConfig("
        + "dtype=torch.float8_e4m3fn, mla_dimensions=(qk_nope_head_dim=128, qk_rope_head_dim=64, "
        + "v_head_dim=128)). Reasons: {ZEN_CPU: [dtype torch.float8_e4m3fn not supported, "
        + "required dependencies not available], CPU: [dtype torch.float8_e4m3fn not supported]}.")
  }

  func testUnknownAndUnregisteredChoices() {
    for (choice, start) in [
      ("NONEXISTENT", "Unknown MLA prefill backend: 'NONEXISTENT'. Valid options are: FLASH_ATTN,"),
      ("", "Unknown MLA prefill backend: ''. Valid options"),
      ("CUSTOM", "MLA prefill backend CUSTOM must be registered before use."),
    ] {
      let error = mlaError { try self.selector().select(self.config(backend: choice)) }
      XCTAssertEqual(error?.status, mla_status(MLA_ERROR_NOT_REGISTERED))
      XCTAssertTrue(error?.message.hasPrefix(start) == true, error?.message ?? "")
    }
  }

  func testChoicesAreReadInUpperCase() throws {
    XCTAssertEqual(try selector().select(config(backend: "flash_attn")), "FLASH_ATTN")
    try registry.register("flashinfer", request(path: "a.B"))
    XCTAssertEqual(try selector().select(config(backend: "flashinfer")), "flashinfer")
    XCTAssertEqual(try selector().select(config(backend: "FlashInfer")), "FLASHINFER")
  }

  func testEnvironmentChoosesWhereTheEngineDoesNot() throws {
    let selector = selector(environment: "FLASHINFER")
    XCTAssertEqual(try selector.select(config()), "FLASHINFER")
    XCTAssertEqual(try selector.select(config(backend: "FLASH_ATTN")), "FLASH_ATTN")
    XCTAssertEqual(try selector.select(config(backend: "auto")), "CPU")
    for automatic in ["", "auto", "AUTO"] {
      XCTAssertEqual(try self.selector(environment: automatic).select(config()), "CPU")
    }
    let error = mlaError { try self.selector(environment: "NOPE").select(self.config()) }
    XCTAssertEqual(error?.status, mla_status(MLA_ERROR_NOT_REGISTERED))
    XCTAssertTrue(
      error?.message.hasPrefix(
        "MLA_PREFILL_BACKEND = NOPE: Unknown MLA prefill backend: 'NOPE'.") == true)
  }

  func testFailingValidateIsAReason() throws {
    try registry.override("CPU", request(BackendProbe(validateStatus: MLA_ERROR_INTERNAL)))
    XCTAssertEqual(
      mlaError { try self.selector().select(self.config(backend: "CPU")) }?.message,
      "Selected MLA prefill backend CPU is not valid for this configuration. "
        + "Reason: ['validate failed: status 6']")
  }

  func testMessageOfAFailingValidateIsTheReason() throws {
    LastError.set("what failed before")
    let probe = BackendProbe(validateStatus: MLA_ERROR_INTERNAL) { _ in
      LastError.set("no licence")
    }
    try registry.override("CPU", request(probe))
    _ = try BackendList(selector(), config())
    XCTAssertEqual(String(cString: LastError.cString), "what failed before")
    XCTAssertEqual(
      mlaError { try self.selector().select(self.config(backend: "CPU")) }?.message,
      "Selected MLA prefill backend CPU is not valid for this configuration. "
        + "Reason: ['validate failed: no licence']")
  }

  func testZenNeedsAnAMDHostWithBF16() {
    let bf16 = UInt32(MLA_CPU_AVX512_BF16)
    for (vendor, bits, expected) in [
      ("AuthenticAMD", bf16 | 1, true), ("AuthenticAMD", 1, false), ("GenuineIntel", bf16, false),
      ("", bf16, false),
    ] {
      let features = CPUFeatures(bits: bits, vendor: vendor, model: "", bestFamily: .portable)
      XCTAssertEqual(features.servesZenCPU, expected, vendor)
    }
  }
}
