import MLAKernelABI
import MLATestSupport
import XCTest

/// The up-projection on tiles against float64 and against its own way over rows.
final class AMXProjectionTests: XCTestCase {
  override func setUpWithError() throws { try requireTiles() }

  func testBlockHasTheBitsOfTheWayOverRows() {
    for (attention, projection, format) in kernels {
      for seed: UInt64 in 0..<40 {
        var random = SplitMix64(seed: seed)
        let problem = BlockProjection(attention, projection, format, &random)
        XCTAssertTrue(problem.fused() == problem.byWayOfRows(), "seed \(seed): \(problem)")
      }
    }
  }

  func testRowsAgainstFloat64() {
    for (attention, projection, format) in kernels {
      for seed: UInt64 in 0..<60 {
        var random = SplitMix64(seed: seed)
        let problem = RowProjection(projection, format, &random)
        let what = "\(format.name), seed \(seed): \(problem)"
        let (first, second) = (
          problem.run(within: attention, garbage: 0xFF),
          problem.run(within: attention, garbage: 0x7F)
        )
        let bound = [ElementFormat.bfloat16: 3e-3, .float16: 4e-4][problem.outFormat] ?? 2e-6
        XCTAssertLessThanOrEqual(relativeL2(first.values, problem.reference), bound, what)
        XCTAssertEqual(first.bits, second.bits, what)
        XCTAssertTrue(first.surroundingsAreIntact, what)
      }
    }
  }

  /// Made when a test needs it: making it takes an AMX host's instructions.
  private var kernels: [(mla_attention_kernel, mla_projection_kernel, ElementFormat)] {
    [
      (amxTable.bf16, amxTable.bf16_projection, .bfloat16),
      (amxTable.fp16, amxTable.fp16_projection, .float16),
      (amxTable.fp32, amxTable.fp32_projection, .float32),
    ]
  }
}
