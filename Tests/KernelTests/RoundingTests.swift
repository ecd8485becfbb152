import MLATestSupport
import XCTest

/// A query with one key of score 0 returns that key's value: what conversion on the way
/// in and rounding on the way out make of each number is then plain to see. With other
/// scores a kernel may round the probability that it divides by again, ties among them.
final class RoundingTests: XCTestCase {
  private static let width = 2048

  func testEveryHalfPrecisionValueSurvives() {
    for kernelCase in KernelCase.onThisHost where kernelCase.format != .float32 {
      for first in stride(from: 0, to: 1 << 16, by: Self.width) {
        let bits = (0..<Self.width).map { UInt32(first + $0) }.map { bits in
          Self.mustSurvive(kernelCase.format.value(bits: bits), kernelCase.format) ? bits : 0
        }
        let values = bits.map(kernelCase.format.value(bits:))
        XCTAssertEqual(
          outcome(kernelCase, bits, kernelCase.format), values, "\(kernelCase) from \(first)")
      }
    }
  }

  func testOutIsRoundedToTheNearestValue() {
    for kernelCase in KernelCase.onThisHost where kernelCase.format == .float32 {
      for format in ElementFormat.inputs {
        var random = SplitMix64(seed: 19)
        // Through fp16's subnormal numbers up to beyond its largest.
        let values = (0..<Self.width).map { _ in
          Double(Float(random.normal() * exp2(random.uniform(-26...15))))
        }
        let results = outcome(kernelCase, values.map(ElementFormat.float32.bits), format)
        let wrong = zip(results, values).first { !format.isNearest($0, to: $1, slack: 1e-6) }
        XCTAssertNil(wrong, "\(kernelCase) to \(format.name)")
      }
    }
  }

  /// Every exponent of e4m3 and beyond, infinities and NaN among the values.
  func testFloat8SaturatesAndKeepsNaN() {
    for kernelCase in KernelCase.onThisHost where kernelCase.format == .float32 {
      var random = SplitMix64(seed: 29)
      let special = [0, 448, -448, 449, 464, 1e30, .infinity, -.infinity, .nan, 0x1p-9, 0x1p-10]
      let values = (0..<Self.width).map { index in
        index < special.count
          ? special[index] : Double(Float(random.normal() * exp2(random.uniform(-14...12))))
      }
      let bits = outcomeBits(
        kernelCase, values.map(ElementFormat.float32.bits), .float8E4M3FN)
      for (value, code) in zip(values, bits) where !value.isNaN {
        XCTAssertEqual(
          code, ElementFormat.float8E4M3FN.bits(value), "\(kernelCase): \(value) to \(code)")
      }
      XCTAssertEqual(bits[special.firstIndex { $0.isNaN }!] & 0x7F, 0x7F, "\(kernelCase)")
    }
  }

  /// bf16 instructions take subnormal numbers for 0, and NaN is no number.
  private static func mustSurvive(_ value: Double, _ format: ElementFormat) -> Bool {
    value.isFinite && (format == .float16 || abs(value) >= 0x1p-120)
  }

  private func outcome(
    _ kernelCase: KernelCase, _ bits: [UInt32], _ outFormat: ElementFormat
  ) -> [Double] {
    outcomeBits(kernelCase, bits, outFormat).map(outFormat.value(bits:))
  }

  private func outcomeBits(
    _ kernelCase: KernelCase, _ bits: [UInt32], _ outFormat: ElementFormat
  ) -> [UInt32] {
    var random = SplitMix64(seed: 23)
    let shape = AttentionShape(
      qkDim: 24, vDim: bits.count, numQueries: 1, numKeys: 1, keyBegin: 0, keyEnd: 1,
      causalOffset: 0, outFormat: outFormat)
    let problem = AttentionProblem(kernelCase, shape, .normal(0), &random)
    for (index, bits) in bits.enumerated() {
      kernelCase.format.storeBits(
        bits, to: problem.v.pointer() + index * kernelCase.format.byteCount)
    }
    return problem.run().out.bits
  }
}
