import MLAKernelABI
import MLATestSupport
import XCTest

/// Each attention kernel of each table of this host against float64.
final class AttentionKernelTests: XCTestCase {
  /// Three formats: 360 cases a table.
  static let casesPerKernel: UInt64 = 120

  func testRandomProblemsAgainstFloat64() {
    for kernelCase in KernelCase.onThisHost {
      var worst = (out: 0.0, lse: 0.0)
      for seed in 0..<Self.casesPerKernel {
        let problem = AttentionProblem(kernelCase, seed: seed)
        let errors = check(problem, "seed \(seed)")
        worst.lse = max(worst.lse, errors.lse)
        // Another format's rounding would hide the kernel's own error.
        if problem.shape.outFormat == kernelCase.format { worst.out = max(worst.out, errors.out) }
      }
      print(
        "\(kernelCase): worst out at \(String(format: "%.2f", worst.out)), lse at "
          + "\(String(format: "%.2f", worst.lse)) of the bounds")
    }
  }

  /// Scores that only ever grow, or jump at the end, at every length around the
  /// tiles: where a running maximum that is not one would show.
  func testEveryOrderOfScoresAroundTheTileSizes() {
    for kernelCase in KernelCase.onThisHost {
      let kernel = kernelCase.kernel
      var random = SplitMix64(seed: 7)
      let lengths = [1, Int(kernel.key_block) - 1, Int(kernel.key_block), Int(kernel.key_block) + 1, 333]
      for keys in lengths where keys > 0 {
        for order in ScorePattern.Order.allCases {
          let queries = min(keys, Int(kernel.query_tile), 48)
          let shape = AttentionShape(
            qkDim: 96, vDim: 64, numQueries: queries, numKeys: keys, keyBegin: 0, keyEnd: keys,
            causalOffset: keys - queries, outFormat: kernelCase.format)
          let problem = AttentionProblem(kernelCase, shape, .spread(order), &random)
          check(problem, "\(keys) keys, \(order)")
        }
      }
    }
  }

  /// Quantized once: what the same call gives in fp32, times the multiplier.
  func testFloat8IsTheFloat32ResultRounded() {
    for kernelCase in KernelCase.onThisHost {
      for seed: UInt64 in 0..<24 {
        let problem = AttentionProblem(kernelCase, seed: seed)
        let exact = problem.run(format: .float32)
        for multiplier: Float in [1, 37.3, 1e-3, 1e5, .greatestFiniteMagnitude] {
          let result = problem.run(format: .float8E4M3FN, multiplier: multiplier)
          let what = "\(kernelCase) seed \(seed), times \(multiplier): \(problem.shape)"
          XCTAssertEqual(
            result.out.bits, float8Bits(of: exact.out, times: multiplier), what)
          XCTAssertEqual(result.lse.bits, exact.lse.bits, what)
          XCTAssertTrue(result.surroundingsAreIntact, what)
        }
      }
    }
  }

  func testRowsWithoutKeysAreZeroAndMinusInfinity() {
    for kernelCase in KernelCase.onThisHost {
      var random = SplitMix64(seed: 11)
      let block = Int(kernelCase.kernel.key_block)
      // Nothing visible at all; the first rows see nothing; an empty range.
      for (begin, end, offset) in [(0, 50, -40), (0, 50, -3), (block, block, Optional<Int>.none)]
        as [(Int, Int, Int?)]
      {
        let shape = AttentionShape(
          qkDim: 40, vDim: 24, numQueries: 30, numKeys: block + 50, keyBegin: begin, keyEnd: end,
          causalOffset: offset, outFormat: kernelCase.format)
        let problem = AttentionProblem(kernelCase, shape, .normal(1), &random)
        let result = problem.run()
        for row in 0..<30 where begin == end || row + (offset ?? 0) < begin {
          XCTAssertEqual(result.lse[row, 0, 0], -.infinity, "\(kernelCase) row \(row)")
          XCTAssertTrue(
            (0..<24).allSatisfy { result.out[row, 0, $0] == 0 }, "\(kernelCase) row \(row)")
        }
        check(problem, "offset \(offset ?? 0)")
      }
    }
  }

  /// 0: all keys weigh the same. Below 0: the lowest product wins.
  func testScalesThatAreNotPositive() {
    for kernelCase in KernelCase.onThisHost {
      for scale: Float in [0, -0.1] {
        var random = SplitMix64(seed: 13)
        let shape = AttentionShape(
          qkDim: 96, vDim: 64, numQueries: 20, numKeys: 100, keyBegin: 0, keyEnd: 100,
          causalOffset: 80, outFormat: kernelCase.format)
        let problem = AttentionProblem(kernelCase, shape, .normal(1), &random, scale: scale)
        check(problem, "scale \(scale)")
      }
    }
  }

  /// Each share but the first is lost beside it, where none is carried along: 2e-6 in all,
  /// also when a last one makes what is carried small.
  func testSharesThatAreTooSmallOneByOne() {
    for kernelCase in KernelCase.onThisHost {
      for last in [-31.0, 0] {
        var random = SplitMix64(seed: 19)
        let keys = 60_000
        let shape = AttentionShape(
          qkDim: 1, vDim: 1, numQueries: 1, numKeys: keys, keyBegin: 0, keyEnd: keys,
          causalOffset: nil, outFormat: kernelCase.format)
        let problem = AttentionProblem(kernelCase, shape, .normal(1), &random, scale: 1)
        problem.q[0, 0, 0] = 1
        for key in 0..<keys { problem.k[key, 0, 0] = -31 }
        problem.k[0, 0, 0] = -7
        problem.k[keys - 1, 0, 0] = last
        let error = problem.run().lse[0, 0, 0] - problem.reference.lse[0]
        // Tiles of bf16 have a 2^x that errs by more than what is looked for.
        let errs = kernelCase.isa == Int32(MLA_FAMILY_AMX) && kernelCase.format == .bfloat16
        XCTAssertTrue(
          abs(error) <= (errs ? 5e-6 : 1e-6), "\(kernelCase), last \(last): \(error)")
      }
    }
  }

  /// At the end of a group of 32 keys, where the first query sees all but that one, and
  /// where it sees all.
  func testInfiniteValuesAreThoseOfTheQueriesThatSeeThem() {
    for kernelCase in KernelCase.onThisHost {
      for offset in [30, 31] {
        var random = SplitMix64(seed: 23)
        let shape = AttentionShape(
          qkDim: 32, vDim: 8, numQueries: 3, numKeys: 40, keyBegin: 0, keyEnd: 40,
          causalOffset: offset, outFormat: .float32)
        let problem = AttentionProblem(kernelCase, shape, .normal(1), &random)
        problem.v[31, 0, 0] = .infinity
        problem.v[31, 0, 1] = -.infinity
        let out = problem.run().out
        for row in 0..<3 {
          let sees = row + offset >= 31
          for d in 0..<8 {
            let value = out[row, 0, d]
            XCTAssertTrue(
              sees && d < 2 ? value == (d == 0 ? .infinity : -.infinity) : value.isFinite,
              "\(kernelCase), row \(row) from \(offset), \(d): \(value)")
          }
        }
      }
    }
  }

  /// Results of two halves of the keys, combined, are the result of all.
  func testCombinedHalvesEqualTheWhole() {
    for kernelCase in KernelCase.onThisHost {
      let block = Int(kernelCase.kernel.key_block)
      let keys = 3 * block + 5
      let halves = [(0, 2 * block), (2 * block, keys)].map { range in
        var random = SplitMix64(seed: 17)
        let shape = AttentionShape(
          qkDim: 192, vDim: 128, numQueries: 40, numKeys: keys, keyBegin: range.0,
          keyEnd: range.1, causalOffset: keys - 40, outFormat: .float32)
        return AttentionProblem(kernelCase, shape, .normal(2), &random)
      }
      let result = combine(halves, kernelCase).run()
      let expected = ReferenceAttention(combining: halves.map(\.reference), dim: 128)
      XCTAssertLessThanOrEqual(
        relativeL2(result.out.values, expected.out), kernelCase.outBound, "\(kernelCase)")
      XCTAssertLessThanOrEqual(
        maxDifference(result.lse.values, expected.lse), KernelCase.lseBound, "\(kernelCase)")
    }
  }

  /// A partial result that nothing is added to is the very result.
  func testPartialResultsAreTheResultUnfinished() {
    for kernelCase in KernelCase.onThisHost {
      for seed in 0..<Self.casesPerKernel {
        let problem = AttentionProblem(kernelCase, seed: seed)
        let direct = problem.run(format: .float32)
        let partial = problem.run(garbage: 0x7F, isPartial: true)
        XCTAssertTrue(partial.surroundingsAreIntact, "\(kernelCase) seed \(seed)")
        let result = combine([problem], kernelCase).run()
        let what = "\(kernelCase) seed \(seed): \(problem.shape)"
        XCTAssertEqual(result.out.bits, direct.out.bits, what)
        if problem.shape.wantsLSE { XCTAssertEqual(result.lse.bits, direct.lse.bits, what) }
      }
    }
  }

  private func combine(_ problems: [AttentionProblem], _ kernelCase: KernelCase) -> CombineProblem {
    let shape = problems[0].shape
    let combined = CombineProblem(
      kernelCase.isa, count: problems.count, rows: shape.numQueries, dim: shape.vDim)
    var row = 0
    for partial in problems.map({ $0.run(isPartial: true).out }) {
      for from in 0..<partial.rows {
        for index in 0..<partial.dim { combined.partials[row, 0, index] = partial[from, 0, index] }
        row += 1
      }
    }
    return combined
  }

  /// Runs a problem twice and judges it; returns its errors as fractions of
  /// their bounds.
  @discardableResult
  private func check(_ problem: AttentionProblem, _ label: String) -> (out: Double, lse: Double) {
    let (first, second) = (problem.run(garbage: 0xFF), problem.run(garbage: 0x7F))
    let expected = problem.reference
    let what = "\(problem.kernelCase) \(label): \(problem.shape), \(problem.pattern)"
    let bound = max(problem.kernelCase.outBound, KernelCase.outBound(problem.shape.outFormat))
    let out = relativeL2(first.out.values, expected.out) / (problem.pattern.slack * bound)
    var lse = 0.0
    if problem.shape.wantsLSE {
      lse = maxDifference(first.lse.values, expected.lse) / (problem.pattern.slack * KernelCase.lseBound)
    } else {
      XCTAssertTrue(
        first.lse.bits.allSatisfy { $0 == ElementFormat.float32.poison }, "wrote lse: \(what)")
    }
    // Not "greater than": NaN must fail too.
    XCTAssertTrue(out <= 1, "out at \(out) of its bound: \(what)")
    XCTAssertTrue(lse <= 1, "lse at \(lse) of its bound: \(what)")
    XCTAssertTrue(first.bits == second.bits, "bits differ between two runs: \(what)")
    XCTAssertTrue(
      first.surroundingsAreIntact && second.surroundingsAreIntact && problem.inputsAreIntact,
      "wrote outside its rows: \(what)")
    return (out, lse)
  }
}
