import Foundation
import MLATestSupport
import XCTest

/// The AMX kernels against float64. Bounds are those that every kernel of their
/// dtype must keep: relative L2 error of the outputs 4e-3 in bf16, 1.5e-3 in fp16 and
/// 2e-5 in fp32, of the lse 2e-4 absolute.
class AMXAttentionTestCase: XCTestCase {
  override func setUpWithError() throws { try requireTiles() }

  static let inputs = ElementFormat.inputs

  /// A test's largest errors as fractions of their bounds.
  var worst: [ElementFormat: (out: Double, lse: Double)] = [:]

  func reference(_ attention: AttentionCase, _ tensors: AttentionTensors) -> ReferenceAttention {
    ReferenceAttention(
      q: tensors.q.values, k: tensors.k.values, v: tensors.v.values, qkDim: attention.qkDim,
      vDim: attention.vDim, scale: Double(Float(attention.usedScale)), keyRange: attention.range,
      causalOffset: attention.causalOffset)
  }

  private static func outBound(_ format: ElementFormat) -> Double {
    [.bfloat16: 4e-3, .float16: 1.5e-3][format] ?? 2e-5
  }

  /// Checks the case with inputs of every dtype.
  func check(
    _ attention: AttentionCase, times factor: Double = 1, file: StaticString = #filePath, line: UInt = #line,
    filling: (AttentionTensors) -> Void = { _ in }
  ) {
    for input in Self.inputs {
      var attention = attention
      attention.input = input
      let tensors = AttentionTensors(attention)
      filling(tensors)
      let errors = check(attention, tensors, times: factor, file: file, line: line)
      worst[input] = worst[input].map { (max($0.out, errors.out), max($0.lse, errors.lse)) } ?? errors
    }
  }

  /// Returns the errors as fractions of their bounds.
  private func check(
    _ attention: AttentionCase, _ tensors: AttentionTensors, times factor: Double, file: StaticString,
    line: UInt
  ) -> (out: Double, lse: Double) {
    let result = AMXKernel(attention.input).run(attention, tensors)
    let reference = reference(attention, tensors)
    let bound = max(Self.outBound(attention.input), Self.outBound(attention.usedFormat))
    let out = relativeL2(result.out.values, reference.out) / (bound * factor)
    XCTAssertLessThanOrEqual(out, 1, "\(attention)", file: file, line: line)
    XCTAssertTrue(result.out.surroundingsAreIntact, "\(attention)", file: file, line: line)
    if !attention.wantsLSE {
      XCTAssertTrue(result.lse.allSatisfy(\.isNaN), file: file, line: line)
      return (out, 0)
    }
    let lse = maxDifference(result.lse.map(Double.init), reference.lse) / (2e-4 * factor)
    XCTAssertLessThanOrEqual(lse, 1, "\(attention)", file: file, line: line)
    return (out, lse)
  }
}
