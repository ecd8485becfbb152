import MLATestSupport
import XCTest

@testable import MLACore

final class RegisteredMemoryTests: XCTestCase {
  /// Several threads make fp32 of a run's result, in the place of its keys and values: what
  /// one writes is not what another has yet to read, however wide values are.
  func testAResultEndsWhereItsSourceBegins() throws {
    var random = SplitMix64(seed: 75)
    let start = try XCTUnwrap(UnsafeMutableRawPointer(bitPattern: 1 << 20))
    for dims in LayerModel.allDims {
      let model = LayerModel(.bfloat16, numHeads: 3, dims: dims, &random)
      var read: LayerConfig?
      _ = try model.makeLayer { read = try? LayerConfig.read(&$0).0 }
      let memory = RegisteredMemory(
        try XCTUnwrap(read), rows: 50, tokens: 50, merges: true, workspaceBytes: 0, workers: 1,
        scratchBytes: 0)
      let bytes = 50 * 3 * model.vDim * 4
      XCTAssertGreaterThanOrEqual(
        memory.part(start, 50).out.address, memory.result(start, 50).address + UInt(bytes),
        "\(dims)")
    }
  }
}
