import MLATestSupport
import XCTest

/// Each table's combine against float64.
final class CombineKernelTests: XCTestCase {
  private static let tables = Set(KernelCase.onThisHost.map(\.isa)).sorted()

  func testRandomPartialsAgainstFloat64() {
    for isa in Self.tables {
      for seed: UInt64 in 0..<300 {
        let problem = CombineProblem(isa, seed: seed)
        let what = "table \(isa), seed \(seed)"
        let (first, second, expected) = (problem.run(), problem.run(), problem.reference)
        checkOut(
          first.out, expected.out, problem.outFormat, times: problem.outMultiplier, what)
        XCTAssertLessThanOrEqual(lseError(first.lse.values, expected.lse), 1e-6, what)
        XCTAssertEqual(first.out.bits, second.out.bits, what)
        XCTAssertEqual(first.lse.bits, second.lse.bits, what)
        XCTAssertTrue(first.surroundingsAreIntact, what)
      }
    }
  }

  /// How many a call adds has no part in bits: it depends on memory and threads.
  func testCallsDoNotShow() {
    for isa in Self.tables {
      for seed: UInt64 in 0..<100 {
        let problem = CombineProblem(isa, seed: seed)
        let whole = problem.run()
        for calls in [[0], [1, 1, 5], Array(repeating: 1, count: problem.count)] {
          let result = problem.run(calls: calls)
          XCTAssertEqual(result.out.bits, whole.out.bits, "table \(isa), seed \(seed), \(calls)")
          XCTAssertEqual(result.lse.bits, whole.lse.bits, "table \(isa), seed \(seed), \(calls)")
        }
      }
    }
  }

  /// Quantized once: what the same call gives in fp32, times the multiplier.
  func testFloat8IsTheFloat32ResultRounded() {
    for isa in Self.tables {
      for seed: UInt64 in 0..<60 {
        let exact = CombineProblem(isa, seed: seed, outFormat: .float32).run()
        let problem = CombineProblem(isa, seed: seed, outFormat: .float8E4M3FN)
        XCTAssertEqual(
          problem.run().out.bits, float8Bits(of: exact.out, times: problem.outMultiplier),
          "table \(isa), seed \(seed)")
      }
    }
  }

  func testRowsWithoutKeysAreZeroAndMinusInfinity() {
    for isa in Self.tables {
      for format in ElementFormat.allCases {
        for count in [1, 3] {
          let problem = CombineProblem(isa, count: count, rows: 3, dim: 40, outFormat: format)
          for row in 0..<3 * count { problem.set(row, reference: -.infinity, sum: 0) }
          let result = problem.run()
          XCTAssertTrue(result.out.values.allSatisfy { $0 == 0 }, "table \(isa) \(format.name)")
          XCTAssertTrue(result.lse.values.allSatisfy { $0 == -.infinity }, "table \(isa)")
        }
      }
    }
  }

  /// What a row's keys have of NaN shows, in whichever partial result, and in no other row.
  func testNaNShows() {
    for isa in Self.tables {
      for (reference, sum) in [(1, .nan), (.infinity, .nan), (-.infinity, .nan)] as [(Double, Double)] {
        for place in 0..<3 {
          let problem = CombineProblem(isa, count: 3, rows: 2, dim: 20)
          for row in 0..<6 { problem.set(row, reference: Double(row), sum: 2, out: 4) }
          problem.set(2 * place, reference: reference, sum: sum, out: .nan)
          let result = problem.run()
          XCTAssertTrue(result.lse[0, 0, 0].isNaN && result.out[0, 0, 7].isNaN, "table \(isa)")
          XCTAssertEqual(result.out[1, 0, 7], 2, "table \(isa)")
        }
      }
    }
  }

  /// A weight of 1 is 1: what others are too light to change keeps its bits.
  func testOneThatOutweighsTheOthersIsExact() {
    for isa in Self.tables {
      for place in 0..<3 {
        let problem = CombineProblem(isa, count: 3, rows: 1, dim: 20)
        for row in 0..<3 { problem.set(row, reference: -90.3, sum: 1.7, out: 3) }
        // A whole number above the others, and so relative to them without rounding.
        problem.set(place, reference: -90.3 + 64, sum: 1, out: 0.1)
        let result = problem.run()
        XCTAssertEqual(result.out[0, 0, 3], Double(Float(0.1)), accuracy: 1e-7, "table \(isa)")
        XCTAssertEqual(
          result.lse[0, 0, 0], Double(Float(-90.3 + 64)) * log(2), accuracy: 3e-6,
          "table \(isa)")
      }
    }
  }

  /// lse's error does not grow with the number of partial results.
  func testManyPartials() {
    for isa in Self.tables {
      for (count, rise) in [(100, 0.37), (5000, 0.001), (20_000, 0), (20_000, -0.0003)] {
        let problem = CombineProblem(isa, count: count, rows: 1, dim: 4)
        for row in 0..<count {
          problem.set(row, reference: rise * Double(row), sum: 1.1, out: 3.3)
        }
        let (result, expected) = (problem.run(), problem.reference)
        let what = "table \(isa), \(count) partials that rise by \(rise)"
        XCTAssertLessThanOrEqual(lseError(result.lse.values, expected.lse), 3e-7, what)
        XCTAssertLessThanOrEqual(relativeL2(result.out.values, expected.out), 3e-4, what)
      }
    }
  }
}

extension XCTestCase {
  func checkOut(
    _ out: PoisonedTensor, _ expected: [Double], _ format: ElementFormat,
    times multiplier: Float, _ what: String
  ) {
    if format == .float8E4M3FN {
      let scaled = expected.map { $0 * Double(multiplier) }
      let wrong = zip(out.values, scaled).first { !format.isNearest($0, to: $1, slack: 1e-5) }
      XCTAssertNil(wrong, what)
      return
    }
    // Rounding to the format, or fp32's own arithmetic.
    let bound = [ElementFormat.bfloat16: 0x1p-8, .float16: 0x1p-11][format] ?? 1e-6
    let error = relativeL2(out.values, expected)
    XCTAssertTrue(error <= bound, "error \(error): \(what)")
  }

  /// Relative for large values: fp32 has 24 bits wherever the point is.
  func lseError(_ actual: [Double], _ expected: [Double]) -> Double {
    zip(actual, expected).map { maxDifference([$0], [$1]) / max(1, $1.isFinite ? abs($1) : 1) }
      .max() ?? 0
  }
}
