import MLATestSupport
import XCTest

/// Each table's merge against float64.
final class MergeKernelTests: XCTestCase {
  private static let tables = Set(KernelCase.onThisHost.map(\.isa)).sorted()

  func testRandomSidesAgainstFloat64() {
    for isa in Self.tables {
      for seed: UInt64 in 0..<300 {
        let problem = MergeProblem(isa, seed: seed)
        let what = "table \(isa), seed \(seed)"
        let (first, second, expected) = (problem.run(), problem.run(), problem.reference)
        checkOut(first.out, expected.out, problem.outFormat, times: problem.outMultiplier, what)
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
        let sides = MergeProblem(isa, seed: seed).sides
        let exact = MergeProblem(isa, sides: sides, outFormat: .float32).run()
        for multiplier: Float in [0.3, 1000, .greatestFiniteMagnitude] {
          let result = MergeProblem(
            isa, sides: sides, outFormat: .float8E4M3FN, outMultiplier: multiplier
          ).run()
          XCTAssertEqual(
            result.out.bits, float8Bits(of: exact.out, times: multiplier),
            "table \(isa), seed \(seed), times \(multiplier)")
        }
      }
    }
  }

  /// A view that is a side's own may be overwritten, whichever it is.
  func testInPlaceEqualsOutOfPlace() {
    for isa in Self.tables {
      for seed: UInt64 in 0..<60 {
        let fresh = MergeProblem(isa, seed: seed)
        guard fresh.outFormat == fresh.sides[0].out.format else { continue }
        let expected = fresh.run()
        for index in fresh.sides.indices {
          let problem = MergeProblem(isa, seed: seed)
          let result = problem.run(inPlace: index)
          XCTAssertEqual(result.out.bits, expected.out.bits, "table \(isa), seed \(seed)")
          XCTAssertEqual(result.lse.bits, expected.lse.bits, "table \(isa), seed \(seed)")
        }
      }
    }
  }

  func testRowsThatAreEmptyEverywhereAreZeroAndMinusInfinity() {
    for isa in Self.tables {
      let sides = [-Double.infinity, .infinity].map { empty -> MergeProblem.Side in
        let out = PoisonedTensor(.bfloat16, rows: 3, dim: 40)
        let lse = PoisonedTensor(.float32, rows: 3, dim: 1)
        for row in 0..<3 {
          lse[row, 0, 0] = empty
          for index in 0..<40 { out[row, 0, index] = 5 }
        }
        return (out, lse)
      }
      for format in ElementFormat.allCases {
        let result = MergeProblem(isa, sides: sides, outFormat: format).run()
        XCTAssertTrue(result.out.values.allSatisfy { $0 == 0 }, "table \(isa) \(format.name)")
        XCTAssertTrue(result.lse.values.allSatisfy { $0 == -.infinity }, "table \(isa)")
      }
    }
  }
}
