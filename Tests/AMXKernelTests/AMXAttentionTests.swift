import MLATestSupport
import XCTest

/// The AMX kernels against float64: every shape, spread and kind of scores.
final class AMXAttentionTests: AMXAttentionTestCase {
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
}
