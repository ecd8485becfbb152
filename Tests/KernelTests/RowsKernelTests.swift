import MLACore
import MLAKernelABI
import MLATestSupport
import XCTest

/// Each kernel for rows as they lie of each table of this host against float64.
final class RowsKernelTests: XCTestCase {
  /// Three formats: 360 cases a table.
  private static let casesPerKernel: UInt64 = 120

  func testRandomProblemsAgainstFloat64() {
    for kernelCase in KernelCase.onThisHost {
      for seed in 0..<Self.casesPerKernel {
        let problem = RowsProblem(kernelCase, of: kernelCase.table, seed: seed)
        let (result, reference) = (problem.run(), problem.reference)
        let out = relativeL2(result.out.values, reference.out)
        let lse = maxDifference(result.lse.values, reference.lse)
        let what = "\(kernelCase) seed \(seed) \(problem.shape): out \(out), lse \(lse)"
        XCTAssertTrue(out <= kernelCase.outBound, what)
        XCTAssertTrue(lse <= KernelCase.lseBound, what)
        XCTAssertTrue(result.surroundingsAreIntact && problem.inputsAreIntact, what)
      }
    }
  }

  /// What was in the scratch, which addresses are fetched and where rows lie.
  func testBitsDependOnNothingElse() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 0..<24 {
        let problem = RowsProblem(kernelCase, of: kernelCase.table, seed: seed)
        let expected = problem.run().bits
        XCTAssertEqual(problem.run(garbage: 0x3C).bits, expected, "\(kernelCase) seed \(seed)")
        XCTAssertEqual(problem.run(fetches: false).bits, expected, "\(kernelCase) seed \(seed)")
        XCTAssertEqual(problem.run(movesRows: true).bits, expected, "\(kernelCase) seed \(seed)")
      }
    }
  }

  /// Each row scores higher than all before it, so that what earlier calls have summed up is
  /// brought down.
  func testGrowingScores() {
    for kernelCase in KernelCase.onThisHost {
      for (queries, step) in [(1, 0.05), (40, 0.1), (70, 0.5)] {
        let problem = RowsProblem(
          kernelCase, of: kernelCase.table,
          RowsShape(qkDim: 64, vDim: 50, queries: queries, rows: 700), seed: 8)
        for row in 0..<700 { problem.rows[row, 0, 0] = Double(row) * step }
        for query in 0..<queries { problem.q[query, 0, 0] = Double(8 + query % 3) }
        let (result, reference) = (problem.run(), problem.reference)
        let out = relativeL2(result.out.values, reference.out)
        let lse = maxDifference(result.lse.values, reference.lse)
        let what = "\(kernelCase), \(queries) queries, \(step): out \(out), lse \(lse)"
        XCTAssertLessThanOrEqual(out, 4 * kernelCase.outBound, what)
        XCTAssertLessThanOrEqual(lse, 4 * KernelCase.lseBound, what)
      }
    }
  }

  /// A NaN of a row makes NaN of all that it reaches, and nothing else does.
  func testNaNOfARow() {
    for kernelCase in KernelCase.onThisHost {
      for rows in [1, 7, 8, 9, 65] {
        let problem = RowsProblem(
          kernelCase, of: kernelCase.table,
          RowsShape(qkDim: 64, vDim: 40, queries: 5, rows: rows), seed: 3)
        XCTAssertTrue(problem.run().out.values.allSatisfy(\.isFinite), "\(kernelCase)")
        problem.rows[rows - 1, 0, 0] = .nan
        XCTAssertTrue(problem.run().out.values.allSatisfy(\.isNaN), "\(kernelCase), \(rows) rows")
      }
    }
  }
}
