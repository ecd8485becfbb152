import MLAKernelABI
import MLAKernelsAMX
import MLATestSupport
import SoftwareAMX
import XCTest

/// The up-projection on tiles against float64 and against its own way over rows.
final class AMXProjectionTests: XCTestCase {
  override func setUpWithError() throws { try requireAMX() }

  func testBlockHasTheBitsOfTheWayOverRows() {
    for seed: UInt64 in 0..<40 {
      var random = SplitMix64(seed: seed)
      let problem = BlockProjection(table.bf16, table.bf16_projection, .bfloat16, &random)
      XCTAssertTrue(problem.fused() == problem.byWayOfRows(), "seed \(seed): \(problem)")
    }
  }

  func testRowsAgainstFloat64() {
    for seed: UInt64 in 0..<60 {
      var random = SplitMix64(seed: seed)
      let problem = RowProjection(table.bf16_projection, .bfloat16, &random)
      let what = "seed \(seed): \(problem)"
      let (first, second) = (
        problem.run(within: table.bf16, garbage: 0xFF),
        problem.run(within: table.bf16, garbage: 0x7F)
      )
      let bound = [ElementFormat.bfloat16: 3e-3, .float16: 4e-4][problem.outFormat] ?? 2e-6
      XCTAssertLessThanOrEqual(relativeL2(first.values, problem.reference), bound, what)
      XCTAssertEqual(first.bits, second.bits, what)
      XCTAssertTrue(first.surroundingsAreIntact, what)
    }
  }

  private let table: mla_kernel_table = {
    var table = mla_kernel_table()
    fillAMXKernels(&table)
    return table
  }()
}
