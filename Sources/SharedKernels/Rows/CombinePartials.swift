import MLAKernelABI
import MLAShims

/// Weighted mean of partial results, see `mla_combine_args`. All fp32 inside;
/// partials are added in the order in which they are given. An fp8 output is the
/// fp32 one times out_multiplier, rounded once.
@inline(never)
func combinePartials(_ args: UnsafePointer<mla_combine_args>) {
  let a = args.pointee
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: combine(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: combine(Float16Format.self, a)
  default: combine(Float32Format.self, a)
  }
}

@inline(__always)
private func combine<Source: ElementFormat>(_: Source.Type, _ a: mla_combine_args) {
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: combine(Source.self, BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: combine(Source.self, Float16Format.self, a)
  case MLA_FORMAT_FLOAT8_E4M3FN: combine(Source.self, Float8Format.self, a)
  default: combine(Source.self, Float32Format.self, a)
  }
}

@inline(__always)
private func combine<Source: ElementFormat, Target: TargetFormat>(
  _: Source.Type, _: Target.Type, _ a: mla_combine_args
) {
  withUnsafeTemporaryAllocation(of: Float.self, capacity: Weights.known) {
    for row in 0..<Int(a.num_rows) {
      let weights = Weights(a, row, $0.baseAddress.unsafelyUnwrapped)
      writeRow(Source.self, Target.self, a, row, weights)
      if let out = a.lse { out[row * Int(a.lse_stride)] = weights.lse }
    }
  }
}

/// The weight of each partial in a row, and the row's own lse.
private struct Weights {
  /// Of so many partials weights are kept: as many as lie on the stack. Those of more are
  /// computed when they are needed.
  @inline(__always) static var known: Int { 64 }

  let lse: Float
  private let partials: UnsafePointer<mla_partial>
  private let row: Int
  private let numerators: UnsafeMutablePointer<Float>
  private let reference: Float
  private let inverse: Float

  @inline(__always)
  init(_ a: mla_combine_args, _ row: Int, _ numerators: UnsafeMutablePointer<Float>) {
    let partials = a.partials.unsafelyUnwrapped
    var largest = -Float.infinity
    for i in 0..<Int(a.num_partials) {
      let lse = effectiveLSE(partials[i], row)
      // A NaN must win, not be passed over.
      if !(lse <= largest) { largest = lse }
    }
    reference = largest == -.infinity ? 0 : largest
    var sum: Float = 0
    for i in 0..<Int(a.num_partials) {
      let numerator = mla_exp(effectiveLSE(partials[i], row) - reference)
      if i < Weights.known { numerators[i] = numerator }
      sum += numerator
    }
    lse = sum == 0 ? -.infinity : largest + mla_log(sum)
    inverse = sum == 0 ? 0 : 1 / sum
    (self.partials, self.row, self.numerators) = (partials, row, numerators)
  }

  @inline(__always)
  subscript(i: Int) -> Float {
    let numerator =
      i < Weights.known ? numerators[i] : mla_exp(effectiveLSE(partials[i], row) - reference)
    return numerator * inverse
  }
}

@inline(__always)
private func writeRow<Source: ElementFormat, Target: TargetFormat>(
  _: Source.Type, _: Target.Type, _ a: mla_combine_args, _ row: Int,
  _ weights: Weights
) {
  let dims = Int(a.v_head_dim)
  let out = a.out.unsafelyUnwrapped + row * Int(a.out_stride) * Target.bytes
  let multiplier = FloatVector(repeating: a.out_multiplier)
  var d = 0
  while d < dims {
    var sum = FloatVector(repeating: 0)
    for i in 0..<Int(a.num_partials) {
      let weight = weights[i]
      // A side without keys has no values either: what lies there may be NaN.
      if weight == 0 { continue }
      let partial = a.partials[i]
      let values = loadTail(
        Source.self,
        partial.out.unsafelyUnwrapped + (row * Int(partial.out_stride) + d) * Source.bytes,
        (dims - d) * Source.bytes)
      sum = mla_multiply_add(values, FloatVector(repeating: weight), sum)
    }
    storeTail(Target.self, sum * multiplier, out + d * Target.bytes, dims - d)
    d += lanes
  }
}

@inline(__always)
private func effectiveLSE(_ partial: mla_partial, _ row: Int) -> Float {
  let lse = partial.lse[row * Int(partial.lse_stride)]
  return lse == .infinity ? -.infinity : lse
}
