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
        checkOut(first.out, expected.out, problem, what)
        XCTAssertLessThanOrEqual(lseError(first.lse.values, expected.lse), 1e-6, what)
        XCTAssertEqual(first.out.bits, second.out.bits, what)
        XCTAssertEqual(first.lse.bits, second.lse.bits, what)
        XCTAssertTrue(first.out.surroundingsAreIntact && first.lse.surroundingsAreIntact, what)
      }
    }
  }

  /// Quantized once: what the same call gives in fp32, times the multiplier.
  func testFloat8IsTheFloat32ResultRounded() {
    for isa in Self.tables {
      for seed: UInt64 in 0..<60 {
        let partials = CombineProblem(isa, seed: seed).partials
        let exact = CombineProblem(isa, partials: partials, outFormat: .float32).run()
        for multiplier: Float in [0.3, 1000, .greatestFiniteMagnitude] {
          let result = CombineProblem(
            isa, partials: partials, outFormat: .float8E4M3FN, outMultiplier: multiplier
          ).run()
          XCTAssertEqual(
            result.out.bits, float8Bits(of: exact.out, times: multiplier),
            "table \(isa), seed \(seed), times \(multiplier)")
        }
      }
    }
  }

  /// A view that is a partial's own may be overwritten, whichever it is.
  func testInPlaceEqualsOutOfPlace() {
    for isa in Self.tables {
      for seed: UInt64 in 0..<60 {
        let fresh = CombineProblem(isa, seed: seed)
        guard fresh.outFormat == fresh.partials[0].out.format else { continue }
        let expected = fresh.run()
        for index in fresh.partials.indices {
          let problem = CombineProblem(isa, seed: seed)
          let result = problem.run(inPlace: index)
          XCTAssertEqual(result.out.bits, expected.out.bits, "table \(isa), seed \(seed)")
          XCTAssertEqual(result.lse.bits, expected.lse.bits, "table \(isa), seed \(seed)")
        }
      }
    }
  }

  func testRowsThatAreEmptyEverywhereAreZeroAndMinusInfinity() {
    for isa in Self.tables {
      let partials = [-Double.infinity, .infinity].map { empty -> CombineProblem.Partial in
        let out = PoisonedTensor(.bfloat16, rows: 3, dim: 40)
        let lse = PoisonedTensor(.float32, rows: 3, dim: 1)
        for row in 0..<3 {
          lse[row, 0, 0] = empty
          for index in 0..<40 { out[row, 0, index] = 5 }
        }
        return (out, lse)
      }
      for format in ElementFormat.allCases {
        let result = CombineProblem(isa, partials: partials, outFormat: format).run()
        XCTAssertTrue(result.out.values.allSatisfy { $0 == 0 }, "table \(isa) \(format.name)")
        XCTAssertTrue(result.lse.values.allSatisfy { $0 == -.infinity }, "table \(isa)")
      }
    }
  }

  /// Beyond what weights are kept for.
  func testManyPartials() {
    for isa in Self.tables {
      for count in [12, 13, 40] {
        let few = CombineProblem(isa, seed: UInt64(count))
        let partials = (0..<count).flatMap { _ in few.partials + few.partials.reversed() }
        let problem = CombineProblem(isa, partials: partials, outFormat: .float32)
        let (what, result) = ("table \(isa), \(partials.count) partials", problem.run())
        checkOut(result.out, problem.reference.out, problem, what)
        XCTAssertLessThanOrEqual(lseError(result.lse.values, problem.reference.lse), 2e-6, what)
      }
    }
  }

  private func checkOut(
    _ out: PoisonedTensor, _ expected: [Double], _ problem: CombineProblem, _ what: String
  ) {
    if problem.outFormat == .float8E4M3FN {
      let scaled = expected.map { $0 * Double(problem.outMultiplier) }
      let wrong = zip(out.values, scaled).first {
        !problem.outFormat.isNearest($0, to: $1, slack: 1e-5)
      }
      XCTAssertNil(wrong, what)
      return
    }
    // Rounding to the format, or fp32's own arithmetic.
    let bound = [ElementFormat.bfloat16: 0x1p-8, .float16: 0x1p-11][problem.outFormat] ?? 1e-6
    let error = relativeL2(out.values, expected)
    XCTAssertTrue(error <= bound, "error \(error): \(what)")
  }

  /// Relative for large values: fp32 has 24 bits wherever the point is.
  private func lseError(_ actual: [Double], _ expected: [Double]) -> Double {
    zip(actual, expected).map { maxDifference([$0], [$1]) / max(1, $1.isFinite ? abs($1) : 1) }
      .max() ?? 0
  }
}
