import Foundation
import MLATestSupport
import XCTest

/// The AMX kernels against float64. Bounds are those that every kernel of their
/// dtype must keep: relative L2 error of the outputs 4e-3 in bf16, 1.5e-3 in fp16 and
/// 2e-5 in fp32, of the lse 2e-4 absolute.
final class AMXAttentionTests: XCTestCase {
  override func setUpWithError() throws { try requireTiles() }

  static let inputs = ElementFormat.inputs

  /// A test's largest errors as fractions of their bounds.
  private var worst: [ElementFormat: (out: Double, lse: Double)] = [:]
  /// All dimension sets that models have, and some that none has.
  static let dims = [
    (192, 128), (256, 256), (128, 128), (96, 64), (576, 512), (1, 1), (33, 17), (40, 72), (250, 31),
    (32, 256),
  ]

  func testAllDimensions() {
    for (index, (qkDim, vDim)) in Self.dims.enumerated() {
      check(
        AttentionCase(
          qkDim: qkDim, vDim: vDim, queries: 45, keys: 600, causalOffset: 555, seed: UInt64(index)))
    }
  }

  func testEveryNumberOfQueries() {
    for queries in [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 256] {
      check(AttentionCase(qkDim: 96, vDim: 64, queries: queries, keys: queries, causalOffset: 0))
    }
  }

  func testSeveralBlocksOfKeys() {
    check(AttentionCase(queries: 70, keys: 1100, causalOffset: 1030))
    check(AttentionCase(queries: 7, keys: 1537))
    check(AttentionCase(qkDim: 128, queries: 300, keys: 700, causalOffset: 400))
  }

  func testRangesOfKeys() {
    check(AttentionCase(qkDim: 64, vDim: 32, queries: 40, keys: 1300, keyRange: 512..<1024))
    check(AttentionCase(qkDim: 64, vDim: 32, queries: 40, keys: 1300, keyRange: 1024..<1300))
    // The range ends inside a block that goes on.
    check(AttentionCase(qkDim: 64, vDim: 32, queries: 40, keys: 1300, keyRange: 512..<801))
    check(
      AttentionCase(
        qkDim: 64, vDim: 32, queries: 64, keys: 1300, keyRange: 512..<1000, causalOffset: 530))
  }

  func testQueriesWithoutKeys() {
    // Query i sees keys up to i - 40: the first panel none, the second some.
    check(AttentionCase(qkDim: 64, vDim: 48, queries: 80, keys: 80, causalOffset: -40))
    check(AttentionCase(qkDim: 64, vDim: 48, queries: 33, keys: 600, keyRange: 512..<600, causalOffset: 500))
    check(AttentionCase(qkDim: 64, vDim: 48, queries: 5, keys: 40, keyRange: 0..<0))
    check(AttentionCase(qkDim: 64, vDim: 48, queries: 5, keys: 40, causalOffset: -100))
  }

  /// Its probability, and with it the output, is not to be rounded.
  func testAKeyThatOutweighsTheOthersGivesItsValue() {
    for input in [ElementFormat.bfloat16, .float16] {
      for keys in [1, 20] {
        // Scores of some thousands: query and key alike for the first key alone.
        let attention = AttentionCase(
          input: input, qkDim: 64, vDim: 48, queries: 40, keys: keys, scale: 30, seed: UInt64(keys))
        let tensors = AttentionTensors(attention)
        for query in 0..<attention.queries {
          for d in 0..<attention.qkDim { tensors.q[query, 0, d] = tensors.k[0, 0, d] }
        }
        let result = AMXKernel(input).run(attention, tensors)
        for query in 0..<attention.queries {
          for d in 0..<attention.vDim {
            XCTAssertEqual(
              result.out[query, 0, d], tensors.v[0, 0, d], "\(input), query \(query), \(d)")
          }
        }
      }
    }
  }

  func testOutputFormatsAndNoLSE() {
    for format in [ElementFormat.bfloat16, .float16, .float32] {
      check(AttentionCase(vDim: 77, queries: 50, keys: 60, causalOffset: 10, format: format))
    }
    check(AttentionCase(qkDim: 64, vDim: 32, queries: 20, keys: 50, wantsLSE: false))
  }

  /// Quantized once: what the same call gives in fp32, times the multiplier.
  func testFloat8IsTheFloat32ResultRounded() {
    for (index, vDim) in [1, 17, 31, 33, 64, 72, 77, 128, 256, 512].enumerated() {
      var attention = AttentionCase(
        input: Self.inputs[index % 3], qkDim: 64, vDim: vDim, queries: 50, keys: 600, causalOffset: 540 * (index % 2),
        format: .float32, seed: UInt64(index))
      let tensors = AttentionTensors(attention)
      tensors.v[3, 0, 0] = .nan
      let kernel = AMXKernel(attention.input)
      let exact = kernel.run(attention, tensors)
      attention.format = .float8E4M3FN
      for multiplier: Float in [1, 37.3, 1e-3, 1e5, .greatestFiniteMagnitude] {
        attention.multiplier = multiplier
        let result = kernel.run(attention, tensors)
        // The sign of a NaN is nobody's.
        let expected = float8Bits(of: exact.out, times: multiplier).map { $0 == 0xFF ? 0x7F : $0 }
        XCTAssertEqual(
          result.out.bits.map { $0 == 0xFF ? 0x7F : $0 }, expected, "\(attention)")
        XCTAssertTrue(result.out.surroundingsAreIntact, "\(attention)")
      }
    }
  }

  func testSpreadOfScores() {
    for deviation in [0.1, 0.5, 2, 4, 8] {
      check(AttentionCase(queries: 64, keys: 600, causalOffset: 536, deviation: deviation, seed: 9))
    }
  }

  /// Sums are taken of unrounded probabilities and 2^x errs by 2.7e-6, but in bf16 by
  /// 1.6e-7: the lse is far better than its bound.
  func testLSEIsUnbiased() {
    for (input, bound) in [(ElementFormat.bfloat16, 5e-6), (.float16, 1e-6), (.float32, 1e-6)] {
      let attention = AttentionCase(
        input: input, qkDim: 64, vDim: 32, queries: 64, keys: 600, causalOffset: 536)
      let tensors = AttentionTensors(attention)
      let result = AMXKernel(input).run(attention, tensors)
      XCTAssertLessThanOrEqual(
        maxDifference(result.lse.map(Double.init), reference(attention, tensors).lse), bound)
    }
  }

  /// Two keys whose scores lie d apart give an lse of ln(1 + e^-d) above the larger
  /// one, in which every error of e^-d shows.
  func testEveryFractionOfAPowerOfTwo() {
    for (input, bound) in [(ElementFormat.bfloat16, 2.9e-6), (.float16, 3e-7), (.float32, 3e-7)] {
      let attention = AttentionCase(
        input: input, qkDim: 1, vDim: 1, queries: 480, keys: 2, scale: 1)
      let tensors = AttentionTensors(attention)
      var random = SplitMix64(seed: 29)
      tensors.k[0, 0, 0] = 0
      tensors.k[1, 0, 0] = 1
      for row in 0..<attention.queries { tensors.q[row, 0, 0] = random.uniform(-3...0) }
      let lse = AMXKernel(input).run(attention, tensors).lse
      let worst = (0..<attention.queries).map { row in
        abs(Double(lse[row]) - log1p(exp(tensors.q[row, 0, 0])))
      }.max() ?? .infinity
      XCTAssertLessThan(worst, bound, input.name)
    }
  }

  /// A query with one key returns that key's value: no bit of it is lost in parts.
  func testEveryHalfPrecisionValueSurvives() {
    for input in [ElementFormat.bfloat16, .float16] {
      for first in stride(from: 0, to: 1 << 16, by: 2048) {
        let attention = AttentionCase(input: input, qkDim: 24, vDim: 2048)
        let tensors = AttentionTensors(attention)
        for index in 0..<2048 {
          let value = input.value(bits: UInt32(first + index))
          // Tiles take subnormal bf16 for 0.
          let survives = value.isFinite && (input == .float16 || abs(value) >= 0x1p-120)
          tensors.v[0, 0, index] = survives ? value : 0
        }
        XCTAssertEqual(
          AMXKernel(input).run(attention, tensors).out.values, tensors.v.values,
          "\(input.name) from \(first)")
      }
    }
  }

  /// All bits of fp32 come through, and infinities, whichever part of them is 0.
  func testValuesOfFullPrecision() {
    for (input, bound) in [(ElementFormat.float16, 0), (.float32, 3e-7)] {
      let attention = AttentionCase(input: input, qkDim: 24, vDim: 2048)
      let tensors = AttentionTensors(attention)
      let values = tensors.v.values
      tensors.v[0, 0, 0] = .infinity
      tensors.v[0, 0, 2047] = -.infinity
      let out = AMXKernel(input).run(attention, tensors).out.values
      XCTAssertEqual(out[0], .infinity, input.name)
      XCTAssertEqual(out[2047], -.infinity, input.name)
      for index in 1..<2047 {
        XCTAssertLessThanOrEqual(
          abs(out[index] - values[index]), bound * abs(values[index]), input.name)
      }
    }
  }

  /// A score of one large product is off by fp32's rounding alone, where one of the
  /// products that make it up would be missed.
  func testScoresOfOneProduct() {
    for (input, deviation) in [(ElementFormat.float16, 8.0), (.float16, 1e4), (.float32, 80)] {
      let attention = AttentionCase(
        input: input, qkDim: 1, vDim: 9, queries: 160, keys: 600, deviation: deviation)
      let tensors = AttentionTensors(attention)
      let result = AMXKernel(input).run(attention, tensors)
      let expected = reference(attention, tensors)
      let error = zip(result.lse, expected.lse).map { abs(Double($0) - $1) / max(1, abs($1)) }
      XCTAssertLessThanOrEqual(error.max() ?? .infinity, 5e-7, "\(attention)")
    }
  }

  func testRandomCases() {
    var random = SplitMix64(seed: 2026)
    for seed in 0..<150 {
      let (qkDim, vDim) = Self.dims[random.int(0...3)]
      let keys = random.int(1...700)
      let queries = random.int(1...min(keys, 300))
      check(
        AttentionCase(
          qkDim: qkDim, vDim: vDim, queries: queries, keys: keys,
          causalOffset: random.int(0...3) == 0 ? nil : keys - queries,
          deviation: random.uniform(0.1...8), seed: UInt64(seed)))
    }
    for input in Self.inputs {
      print("\(input.name): worst out and lse at \(worst[input]!) of the bounds")
    }
  }

  func testScoresUpToEighty() {
    var attention = AttentionCase(queries: 64, keys: 600, causalOffset: 536)
    attention.scale = 80 / 4.0 / Double(attention.qkDim).squareRoot()
    check(attention, times: 4)
  }

  func testNegativeAndZeroScale() {
    check(AttentionCase(qkDim: 64, vDim: 32, queries: 40, keys: 90, causalOffset: 50, scale: -0.125))
    check(AttentionCase(qkDim: 64, vDim: 32, queries: 40, keys: 90, causalOffset: 50, scale: 0))
  }

  /// Each key scores higher than all before it, up to a raised reference in
  /// every group; with one panel and with several.
  func testGrowingScores() {
    for (step, queries) in [(0.05, 70), (0.5, 70), (1.5, 70), (0.05, 20), (0.5, 20)] {
      let attention = AttentionCase(
        qkDim: 64, vDim: 64, queries: queries, keys: 1100, causalOffset: 1100 - queries, scale: 1)
      check(attention, times: 4) { tensors in
        for row in 0..<attention.queries {
          for d in 0..<64 { tensors.q[row, 0, d] = d == 0 ? 1 + Double(row % 3) : 0 }
        }
        for row in 0..<attention.keys { tensors.k[row, 0, 0] = Double(row) * step }
      }
    }
  }

  /// All of a row's scores are near 200 or -200, where exponentials of them do
  /// not exist.
  func testScoresFarFromZero() {
    for shift in [200.0, -200] {
      let attention = AttentionCase(
        qkDim: 64, vDim: 64, queries: 40, keys: 600, causalOffset: 560, scale: 0.25)
      check(attention) { tensors in
        for row in 0..<attention.queries { tensors.q[row, 0, 0] = 4 }
        for row in 0..<attention.keys { tensors.k[row, 0, 0] = shift }
      }
    }
  }

  // MARK: Neighbours

  func testNaNStaysInItsRow() {
    for input in Self.inputs {
      let attention = AttentionCase(input: input, queries: 70, keys: 600, causalOffset: 530)
      let expected = AMXKernel(input).run(attention, AttentionTensors(attention))
      let poisoned = AttentionTensors(attention)
      for d in 0..<attention.qkDim { poisoned.q[37, 0, d] = .nan }
      let actual = AMXKernel(input).run(attention, poisoned)
      for row in 0..<attention.queries where row != 37 {
        XCTAssertTrue(rowBits(actual, row) == rowBits(expected, row), "row \(row)")
      }
      XCTAssertTrue(actual.lse[37].isNaN)
      XCTAssertTrue(actual.out[37, 0, 0].isNaN)
    }
  }

  func testUnseenNaNKeysDoNotMatter() {
    for input in Self.inputs {
      let attention = AttentionCase(input: input, queries: 64, keys: 64, causalOffset: 0)
      let poisoned = AttentionTensors(attention)
      for d in 0..<attention.qkDim { poisoned.k[40, 0, d] = .nan }
      let result = AMXKernel(input).run(attention, poisoned)
      let expected = AMXKernel(input).run(attention, AttentionTensors(attention))
      for row in 0..<40 {
        XCTAssertTrue(rowBits(result, row) == rowBits(expected, row), "row \(row)")
      }
      for row in 40..<64 { XCTAssertTrue(result.lse[row].isNaN, "row \(row)") }
    }
  }

  // MARK: Bits

  func testSameBitsTwiceAndAtAnyPlaceInTheTile() {
    // Where scores lie far apart, references are raised time and again.
    for (input, deviation) in [(ElementFormat.bfloat16, 3.0), (.bfloat16, 60), (.float32, 60)] {
      let attention = AttentionCase(
        input: input, queries: 300, keys: 800, causalOffset: 500, deviation: deviation)
      let tensors = AttentionTensors(attention)
      let kernel = AMXKernel(input)
      let first = kernel.run(attention, tensors)
      for tile in [256, 96, 37] {
        let again = kernel.run(attention, tensors, tile: tile)
        XCTAssertTrue(again.out.bits == first.out.bits, "tiles of \(tile)")
        XCTAssertTrue(
          again.lse.map(\.bitPattern) == first.lse.map(\.bitPattern), "tiles of \(tile)")
      }
    }
  }

  // MARK: Checks

  private func rowBits(_ result: AttentionResult, _ row: Int) -> [UInt64] {
    (0..<result.out.dim).map { result.out[row, 0, $0].bitPattern } + [UInt64(result.lse[row].bitPattern)]
  }

  private func reference(_ attention: AttentionCase, _ tensors: AttentionTensors)
    -> ReferenceAttention
  {
    ReferenceAttention(
      q: tensors.q.values, k: tensors.k.values, v: tensors.v.values, qkDim: attention.qkDim,
      vDim: attention.vDim, scale: Double(Float(attention.usedScale)), keyRange: attention.range,
      causalOffset: attention.causalOffset)
  }

  private static func outBound(_ format: ElementFormat) -> Double {
    [.bfloat16: 4e-3, .float16: 1.5e-3][format] ?? 2e-5
  }

  /// Checks the case with inputs of every dtype.
  private func check(
    _ attention: AttentionCase, times factor: Double = 1, line: UInt = #line,
    filling: (AttentionTensors) -> Void = { _ in }
  ) {
    for input in Self.inputs {
      var attention = attention
      attention.input = input
      let tensors = AttentionTensors(attention)
      filling(tensors)
      let errors = check(attention, tensors, times: factor, line: line)
      worst[input] = worst[input].map { (max($0.out, errors.out), max($0.lse, errors.lse)) } ?? errors
    }
  }

  /// Returns the errors as fractions of their bounds.
  private func check(
    _ attention: AttentionCase, _ tensors: AttentionTensors, times factor: Double, line: UInt
  ) -> (out: Double, lse: Double) {
    let result = AMXKernel(attention.input).run(attention, tensors)
    let reference = reference(attention, tensors)
    let bound = max(Self.outBound(attention.input), Self.outBound(attention.usedFormat))
    let out = relativeL2(result.out.values, reference.out) / (bound * factor)
    XCTAssertLessThanOrEqual(out, 1, "\(attention)", line: line)
    XCTAssertTrue(result.out.surroundingsAreIntact, "\(attention)", line: line)
    if !attention.wantsLSE {
      XCTAssertTrue(result.lse.allSatisfy(\.isNaN), line: line)
      return (out, 0)
    }
    let lse = maxDifference(result.lse.map(Double.init), reference.lse) / (2e-4 * factor)
    XCTAssertLessThanOrEqual(lse, 1, "\(attention)", line: line)
    return (out, lse)
  }
}
