import CMLAPrefill
import XCTest

@testable import MLACore

/// What each built-in says against a configuration, and what a configuration
/// must look like.
final class SelectorRulesTests: XCTestCase {
  private let missing = "required dependencies not available"
  private let hint =
    "tokenspeed_mla package is not installed. Install it with: `uv pip install tokenspeed-mla`"

  private func reasons(
    _ backend: BuiltInBackend, _ platform: Platform, _ capability: DeviceCapability?,
    dimensions: MLADimensions = .deepSeek, dtype: ElementType? = .bfloat16,
    batchInvariant: Bool = false
  ) -> [String] {
    backend.invalidReasons(
      SelectorConfig(
        dtype: dtype, dimensions: dimensions, platform: platform, capability: capability,
        isBatchInvariant: batchInvariant), servesZenCPU: true, providesCUDA: false)
  }

  func testNoProviderForAGPU() {
    for backend in BuiltInBackend.allCases where backend != .rocmAiterFA {
      XCTAssertEqual(
        reasons(backend, .cuda, DeviceCapability(10, 0)),
        [backend == .tokenspeedMLA ? hint : missing], backend.name)
    }
    XCTAssertEqual(reasons(.rocmAiterFA, .rocm, DeviceCapability(9, 4)), [missing])
    XCTAssertEqual(reasons(.rocmAiterFA, .rocm, DeviceCapability(9, 5)), [missing])
  }

  func testCapability() {
    for backend in [BuiltInBackend.flashInfer, .trtllmRagged, .tokenspeedMLA] {
      XCTAssertEqual(
        reasons(backend, .cuda, DeviceCapability(9, 0)).first,
        "compute capability 9.0 not supported")
      XCTAssertEqual(
        reasons(backend, .cuda, DeviceCapability(12, 1)).first,
        "compute capability 12.1 not supported")
      XCTAssertEqual(reasons(backend, .cuda, nil).first, "device capability not available")
    }
    XCTAssertEqual(
      reasons(.rocmAiterFA, .cuda, DeviceCapability(9, 4)).first,
      "compute capability 9.4 not supported")
    XCTAssertEqual(
      reasons(.rocmAiterFA, .rocm, DeviceCapability(9, 0)).first,
      "compute capability 9.0 not supported")
    XCTAssertEqual(reasons(.flashAttn, .cuda, DeviceCapability(7, 0)), [missing])
  }

  func testReasonsStandInVLLMsOrder() {
    XCTAssertEqual(
      reasons(.trtllmRagged, .cuda, nil, dimensions: .mistralSmall4, dtype: .float32),
      [
        "device capability not available", "dtype torch.float32 not supported", missing,
        "Model does not have supported MLA dimensions (got (qk_nope_head_dim=64, "
          + "qk_rope_head_dim=64, v_head_dim=128); supported: (qk_nope_head_dim=128, "
          + "qk_rope_head_dim=64, v_head_dim=128), (qk_nope_head_dim=192, qk_rope_head_dim=64, "
          + "v_head_dim=256))",
      ])
  }

  func testDimensions() {
    let served: [BuiltInBackend: [MLADimensions]] = [
      .flashAttn: [.deepSeek, .glm5, .mistralSmall4, .glm5Next],
      .trtllmRagged: [.deepSeek, .glm5], .flashInfer: [.deepSeek], .tokenspeedMLA: [.deepSeek],
    ]
    let all: [MLADimensions] = [
      .deepSeek, .glm5, .mistralSmall4, .glm5Next, MLADimensions(256, 64, 256),
      MLADimensions(64, 32, 64),
    ]
    for backend in BuiltInBackend.allCases {
      for dimensions in all {
        let said = reasons(backend, .cuda, DeviceCapability(10, 0), dimensions: dimensions)
          .contains { $0.hasPrefix("Model does not have supported MLA dimensions") }
        XCTAssertEqual(
          said, !(served[backend] ?? all).contains(dimensions), "\(backend) \(dimensions)")
      }
    }
    XCTAssertEqual(
      reasons(.flashAttn, .cuda, DeviceCapability(9, 0), dimensions: MLADimensions(256, 64, 256))
        .last,
      "Model does not have supported MLA dimensions "
        + "(got (qk_nope_head_dim=256, qk_rope_head_dim=64, v_head_dim=256))")
  }

  func testBatchInvarianceIsAnAiterMatterOfTheGPU() {
    for backend in BuiltInBackend.allCases {
      XCTAssertEqual(
        reasons(backend, .rocm, DeviceCapability(9, 5), batchInvariant: true)
          .contains("batch invariance not supported"), backend == .rocmAiterFA)
      XCTAssertEqual(reasons(backend, .cpu, nil, batchInvariant: true), [])
    }
  }

  func testCPUServesEveryDimensionAndThreeDtypes() {
    let names: [ElementType?: String] = [
      nil: "None", .float8E4M3: "torch.float8_e4m3fn", .float8E8M0: "torch.float8_e8m0fnu",
    ]
    for backend in BuiltInBackend.allCases {
      for dtype in [nil] + ElementType.allCases {
        XCTAssertEqual(
          reasons(backend, .cpu, nil, dimensions: MLADimensions(1, 2, 3), dtype: dtype),
          names[dtype].map { ["dtype \($0) not supported"] } ?? [])
      }
    }
  }

  private func configError(_ spoil: (inout mla_selector_config) -> Void) -> MLAError? {
    var config = mla_selector_config()
    config.struct_size = UInt32(MemoryLayout<mla_selector_config>.size)
    config.dtype = Int32(MLA_DTYPE_BFLOAT16)
    config.capability_major = -1
    config.capability_minor = -1
    spoil(&config)
    return mlaError { try SelectorConfig(&config) }
  }

  func testMalformedConfigurationsAreNamed() {
    let cases: [(String, (inout mla_selector_config) -> Void)] = [
      ("config.dtype = 6: ", { $0.dtype = 6 }),
      ("config.dtype = -1: ", { $0.dtype = -1 }),
      ("config.platform = 4: ", { $0.platform = 4 }),
      ("config.qk_nope_head_dim = -1: ", { $0.qk_nope_head_dim = -1 }),
      ("config.qk_rope_head_dim = 65537: ", { $0.qk_rope_head_dim = 65537 }),
      ("config.v_head_dim = 2147483647: ", { $0.v_head_dim = .max }),
      ("config.capability_major = -2: ", { $0.capability_major = -2 }),
      ("config.capability_major = 1000: ", { $0.capability_major = 1000 }),
      ("config.capability_minor = -1: ", { $0.capability_major = 9 }),
      ("config.struct_size = 47: ", { $0.struct_size = 47 }),
    ]
    for (start, spoil) in cases {
      let error = configError(spoil)
      XCTAssertEqual(error?.status, mla_status(MLA_ERROR_INVALID_ARGUMENT))
      XCTAssertTrue(error?.message.hasPrefix(start) == true, error?.message ?? "")
    }
    XCTAssertEqual(mlaError { try SelectorConfig(nil) }?.message, "config = NULL: must not be NULL")
    let long = [CChar](repeating: 65, count: 300) + [0]
    XCTAssertEqual(
      long.withUnsafeBufferPointer { name in configError { $0.backend = name.baseAddress } }?
        .message, "config.backend = ...: must have at most 255 bytes")
    let latin1: [CChar] = [65, -23, 0]
    XCTAssertEqual(
      latin1.withUnsafeBufferPointer { name in configError { $0.backend = name.baseAddress } }?
        .message, "config.backend = ...: must be UTF-8")
  }

  func testConfigurationReachesValidateWhole() throws {
    var config = mla_selector_config()
    config.struct_size = 48
    config.dtype = Int32(MLA_DTYPE_FLOAT16)
    config.qk_nope_head_dim = 1
    config.qk_rope_head_dim = 2
    config.v_head_dim = 3
    config.platform = Int32(MLA_PLATFORM_ROCM)
    config.capability_major = 9
    config.capability_minor = 4
    config.batch_invariant = 5
    config.ignore_overrides = 1
    try "CUSTOM".withCString { name in
      config.backend = name
      try SelectorConfig(&config).withCStruct { seen in
        XCTAssertEqual(seen.pointee.struct_size, 48)
        XCTAssertEqual(seen.pointee.dtype, config.dtype)
        XCTAssertEqual(seen.pointee.qk_nope_head_dim, 1)
        XCTAssertEqual(seen.pointee.qk_rope_head_dim, 2)
        XCTAssertEqual(seen.pointee.v_head_dim, 3)
        XCTAssertEqual(seen.pointee.platform, config.platform)
        XCTAssertEqual(seen.pointee.capability_major, 9)
        XCTAssertEqual(seen.pointee.capability_minor, 4)
        XCTAssertEqual(seen.pointee.batch_invariant, 1)
        XCTAssertEqual(seen.pointee.ignore_overrides, 1)
        XCTAssertEqual(String(cString: seen.pointee.backend), "CUSTOM")
      }
    }
  }
}
