import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each indexer's kernel of each table of this host against float64.
final class IndexKernelTests: XCTestCase {
  func testRandomShapesAgainstFloat64() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 0..<80 {
        var random = SplitMix64(seed: seed)
        let problem = IndexProblem(kernelCase, of: kernelCase.table, &random)
        let what = "\(kernelCase), seed \(seed): \(problem)"
        let (first, second) = (problem.run(garbage: 0xFF), problem.run(garbage: 0x7F))
        for key in first.indices {
          let (score, bound) = problem.reference(key)
          XCTAssertLessThanOrEqual(abs(Double(first[key]) - score), bound, "\(what), key \(key)")
        }
        XCTAssertEqual(first.map(\.bitPattern), second.map(\.bitPattern), what)
      }
    }
  }

  /// An infinite number times the zeros that fill a group of heads is none.
  func testHeadsThatDoNotExistHaveNoPart() {
    for kernelCase in KernelCase.onThisHost {
      for heads in 1...9 {
        var random = SplitMix64(seed: UInt64(heads))
        let problem = IndexProblem(kernelCase, of: kernelCase.table, &random, keys: 3, heads: heads)
        for head in 0..<heads { problem.queries[head, 0, 0] = 1 }
        problem.keys[1, 0, 0] = .infinity
        let scores = problem.run(garbage: 0xFF)
        // What is infinite of either sign is no number by itself.
        let isMixed = Set(problem.weights.map(\.sign)).count > 1
        XCTAssertTrue(isMixed ? scores[1].isNaN : scores[1].isInfinite, "\(kernelCase), \(heads) heads")
        XCTAssertTrue(scores[0].isFinite && scores[2].isFinite, "\(kernelCase), \(heads) heads")
      }
    }
  }

  /// Whatever keys it stands beside.
  func testAKeysBitsAreItsOwn() {
    for kernelCase in KernelCase.onThisHost {
      var random = SplitMix64(seed: 3)
      let block = Int(kernelCase.index.key_block)
      let problem = IndexProblem(kernelCase, of: kernelCase.table, &random, keys: block)
      let all = problem.run(garbage: 0xFF).map(\.bitPattern)
      for (first, count) in [(0, 1), (1, block - 1), (block / 3, block / 2), (block - 1, 1)] {
        let part = problem.run(garbage: 0xFF, first: first, count: count).map(\.bitPattern)
        XCTAssertEqual(part, Array(all[first..<first + count]), "\(kernelCase), \(count) from \(first)")
      }
    }
  }
}
