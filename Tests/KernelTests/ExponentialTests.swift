import Foundation
import MLATestSupport
import XCTest

/// The exponential alone: two keys whose scores lie d apart give an lse of
/// ln(1 + e^-d) above the larger one, and every error of e^-d shows in it. Random
/// problems sum hundreds of keys, among which such an error averages out.
final class ExponentialTests: XCTestCase {
  func testEveryFractionOfAPowerOfTwo() {
    for kernelCase in KernelCase.onThisHost {
      var random = SplitMix64(seed: 29)
      let shape = AttentionShape(
        qkDim: 1, vDim: 1, numQueries: 480, numKeys: 2, keyBegin: 0, keyEnd: 2, causalOffset: nil,
        outFormat: kernelCase.format)
      let problem = AttentionProblem(kernelCase, shape, .normal(1), &random, scale: 1)
      problem.k[0, 0, 0] = 0
      problem.k[1, 0, 0] = 1
      for row in 0..<shape.numQueries { problem.q[row, 0, 0] = random.uniform(-3...0) }
      let lse = problem.run().lse
      let worst = (0..<shape.numQueries).map { row in
        abs(lse[row, 0, 0] - log1p(exp(problem.q[row, 0, 0])))
      }.max() ?? .infinity
      XCTAssertLessThan(worst, Self.bound(kernelCase), "\(kernelCase)")
    }
  }

  /// The polynomial's relative error, of 2^0 as of any other power, and fp32's
  /// rounding of the sum and its logarithm.
  private static func bound(_ kernelCase: KernelCase) -> Double {
    let amxTiles = kernelCase.isaName == "amx" && kernelCase.format == .bfloat16
    return amxTiles ? 2.9e-6 : 3e-7
  }
}
