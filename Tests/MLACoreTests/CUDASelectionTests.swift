import CMLAPrefill
import XCTest

@testable import MLACore

/// What is chosen on a host with a GPU that there are kernels for.
final class CUDASelectionTests: XCTestCase {
  private let registry = Registry()

  private func selector(_ capability: DeviceCapability?, environment: String? = nil) -> Selector {
    Selector(
      registry: registry, servesZenCPU: false, environmentChoice: environment,
      cudaCapability: { capability })
  }

  private func open(
    dimensions: MLADimensions = .deepSeek, dtype: ElementType? = .bfloat16, backend: String? = nil
  ) -> SelectorConfig {
    SelectorConfig(
      dtype: dtype, dimensions: dimensions, isPlatformOpen: true, backend: backend)
  }

  func testAGPUIsChosenWhereItServes() throws {
    let hopper = selector(DeviceCapability(9, 0))
    XCTAssertEqual(try hopper.select(open()), "FLASH_ATTN")
    XCTAssertEqual(
      try selector(DeviceCapability(10, 0)).select(open(dimensions: .glm5)), "TRTLLM_RAGGED")
    XCTAssertEqual(try selector(nil).select(open()), "CPU")
    // What the kernels do not take.
    XCTAssertEqual(try hopper.select(open(dtype: .float32)), "CPU")
    XCTAssertEqual(try hopper.select(open(dimensions: MLADimensions(16, 8, 16))), "CPU")
  }

  func testChoicesAreJudgedForTheGPUThenForTheCPU() throws {
    let hopper = selector(DeviceCapability(9, 0))
    XCTAssertEqual(try hopper.select(open(backend: "CPU")), "CPU")
    // On the CPU every name serves, on this GPU one.
    XCTAssertEqual(try hopper.select(open(backend: "FLASHINFER")), "FLASHINFER")
    XCTAssertEqual(try hopper.invalidReasons("FLASH_ATTN", open()), [])
    XCTAssertEqual(try hopper.invalidReasons("CPU", open()), [])
    XCTAssertEqual(
      try hopper.invalidReasons("ZEN_CPU", open()), ["required dependencies not available"])
    XCTAssertEqual(
      try selector(DeviceCapability(9, 0), environment: "CPU").select(open()), "CPU")
  }

  func testAGPUHasNoPartInOtherPlatforms() throws {
    let asked = Guarded(0)
    let selector = Selector(
      registry: registry, servesZenCPU: false,
      cudaCapability: {
        asked.withLock { $0 += 1 }
        return DeviceCapability(9, 0)
      })
    var config = open()
    config.isPlatformOpen = false
    XCTAssertEqual(try selector.select(config), "CPU")
    config.platform = .rocm
    XCTAssertThrowsError(try selector.select(config))
    XCTAssertEqual(asked.withLock { $0 }, 0)
  }

  func testOnlyVLLMsCUDABackendsArePresent() {
    var config = open()
    config.platform = .cuda
    config.capability = DeviceCapability(10, 0)
    for backend in BuiltInBackend.allCases {
      let reasons = backend.invalidReasons(config, servesZenCPU: true, providesCUDA: true)
      XCTAssertEqual(reasons.isEmpty, backend.runsOnCUDA, "\(backend.name): \(reasons)")
    }
    config.capability = DeviceCapability(9, 0)
    XCTAssertEqual(
      BuiltInBackend.flashInfer.invalidReasons(config, servesZenCPU: true, providesCUDA: true),
      ["compute capability 9.0 not supported"])
  }

  /// CUDA counts the devices that the variable leaves, NVML all.
  func testDeviceZero() {
    let cases: [(String?, VisibleDevices.Device?)] = [
      (nil, .index(0)), ("2,0", .index(2)), (" 3 , 1", .index(3)), ("", nil), ("-1", nil),
      ("-1,0", nil), ("none", nil), (",0", nil), ("GPU-8932f937", .uuid("GPU-8932f937")),
      ("MIG-1,0", .uuid("MIG-1")), ("4294967296", nil),
    ]
    for (list, first) in cases {
      XCTAssertEqual(VisibleDevices.first(of: list), first, list ?? "not set")
    }
  }
}
