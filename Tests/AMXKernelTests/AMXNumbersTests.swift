import Foundation
import MLATestSupport
import XCTest

/// What numbers the AMX kernels keep, and where one of them has a part in results.
final class AMXNumbersTests: AMXAttentionTestCase {
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

  private func rowBits(_ result: AttentionResult, _ row: Int) -> [UInt64] {
    (0..<result.out.dim).map { result.out[row, 0, $0].bitPattern } + [UInt64(result.lse[row].bitPattern)]
  }
}
