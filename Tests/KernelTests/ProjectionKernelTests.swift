import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each projection kernel of each table of this host against float64.
final class ProjectionKernelTests: XCTestCase {
  func testRandomShapesAgainstFloat64() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 0..<60 {
        var random = SplitMix64(seed: seed)
        let problem = RowProjection(kernelCase.projection, kernelCase.format, &random)
        let what = "\(kernelCase), seed \(seed): \(problem)"
        let (first, second) = (
          problem.run(within: kernelCase.kernel, garbage: 0xFF),
          problem.run(within: kernelCase.kernel, garbage: 0x7F)
        )
        let bound = [ElementFormat.bfloat16: 3e-3, .float16: 4e-4][problem.outFormat] ?? 2e-6
        XCTAssertTrue(relativeL2(first.values, problem.reference) <= bound, what)
        XCTAssertEqual(first.bits, second.bits, what)
        XCTAssertTrue(first.surroundingsAreIntact, what)
      }
    }
  }

  /// Whatever tokens it stands beside, few or many.
  func testATokensBitsAreItsOwn() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 91..<97 {
        var random = SplitMix64(seed: seed)
        let problem = RowProjection(
          kernelCase.projection, kernelCase.format, &random, tokens: 130)
        let all = problem.run(within: kernelCase.kernel, garbage: 0xFF).bits
        for (first, count) in [(0, 1), (5, 2), (11, 3), (20, 4), (7, 17), (64, 33), (100, 30)] {
          let part = problem.run(
            within: kernelCase.kernel, garbage: 0xFF, first: first, count: count
          ).bits
          let expected = all[first * problem.numWeights..<(first + count) * problem.numWeights]
          XCTAssertEqual(
            part, Array(expected), "\(kernelCase), seed \(seed), \(count) tokens from \(first)")
        }
      }
    }
  }
}
