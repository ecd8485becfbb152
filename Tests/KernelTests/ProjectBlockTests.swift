import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each table's `project_block` against projecting into rows and packing them.
final class ProjectBlockTests: XCTestCase {
  func testSameBitsAsByWayOfRows() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 0..<40 {
        var random = SplitMix64(seed: seed)
        let problem = BlockProjection(
          kernelCase.kernel, kernelCase.projection, kernelCase.format, &random)
        if seed % 4 == 3 { problem.makeAWeightInfinite() }
        let what = "\(kernelCase), seed \(seed): \(problem)"
        XCTAssertTrue(
          problem.fused() == problem.byWayOfRows(), what)
      }
    }
  }
}
