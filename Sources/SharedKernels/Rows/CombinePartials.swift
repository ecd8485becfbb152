import MLAKernelABI
import MLAShims

/// Weighted mean of partial results, see `mla_combine_args`. All fp32 inside;
/// partials are added in the order in which they are given. An fp8 output is the
/// fp32 one times out_multiplier, rounded once.
@inline(never)
func combinePartials(_ args: UnsafePointer<mla_combine_args>?) {
  let a = args.unsafelyUnwrapped.pointee
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
  withUnsafeTemporaryAllocation(of: Float.self, capacity: Int(a.num_partials)) {
    let weights = $0.baseAddress.unsafelyUnwrapped
    for row in 0..<Int(a.num_rows) {
      let lse = weigh(a, row, weights)
      writeRow(Source.self, Target.self, a, row, weights)
      if let out = a.lse { out[row * Int(a.lse_stride)] = lse }
    }
  }
}

/// The weight of each partial in this row; returns the row's own lse.
@inline(__always)
private func weigh(_ a: mla_combine_args, _ row: Int, _ weights: UnsafeMutablePointer<Float>)
  -> Float
{
  var largest = -Float.infinity
  for i in 0..<Int(a.num_partials) {
    let lse = effectiveLSE(a.partials[i], row)
    // A NaN must win, not be passed over.
    if !(lse <= largest) { largest = lse }
  }
  let reference = largest == -.infinity ? 0 : largest
  var sum: Float = 0
  for i in 0..<Int(a.num_partials) {
    weights[i] = mla_exp(effectiveLSE(a.partials[i], row) - reference)
    sum += weights[i]
  }
  if sum == 0 { return -.infinity }
  for i in 0..<Int(a.num_partials) { weights[i] *= 1 / sum }
  return largest + mla_log(sum)
}

@inline(__always)
private func writeRow<Source: ElementFormat, Target: TargetFormat>(
  _: Source.Type, _: Target.Type, _ a: mla_combine_args, _ row: Int,
  _ weights: UnsafePointer<Float>
) {
  let dims = Int(a.v_head_dim)
  let out = a.out.unsafelyUnwrapped + row * Int(a.out_stride) * Target.bytes
  let multiplier = FloatVector(repeating: a.out_multiplier)
  var d = 0
  while d < dims {
    var sum = FloatVector(repeating: 0)
    for i in 0..<Int(a.num_partials) {
      // A side without keys has no values either: what lies there may be NaN.
      if weights[i] == 0 { continue }
      let partial = a.partials[i]
      let values = loadTail(
        Source.self,
        partial.out.unsafelyUnwrapped + (row * Int(partial.out_stride) + d) * Source.bytes,
        (dims - d) * Source.bytes)
      sum = mla_multiply_add(values, FloatVector(repeating: weights[i]), sum)
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
