import MLAKernelABI
import MLAShims

/// Weighted mean of two results, see `mla_merge_rows_args`. All fp32 inside. An fp8
/// output is the fp32 one times out_multiplier, rounded once.
@inline(never)
func mergeRows(_ args: UnsafePointer<mla_merge_rows_args>) {
  let a = args.pointee
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: merge(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: merge(Float16Format.self, a)
  default: merge(Float32Format.self, a)
  }
}

@inline(__always)
private func merge<Source: ElementFormat>(_: Source.Type, _ a: mla_merge_rows_args) {
  switch Int(a.out_format) {
  case MLA_FORMAT_BFLOAT16: merge(Source.self, BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: merge(Source.self, Float16Format.self, a)
  case MLA_FORMAT_FLOAT8_E4M3FN: merge(Source.self, Float8Format.self, a)
  default: merge(Source.self, Float32Format.self, a)
  }
}

@inline(__always)
private func merge<Source: ElementFormat, Target: TargetFormat>(
  _: Source.Type, _: Target.Type, _ a: mla_merge_rows_args
) {
  let dims = Int(a.v_head_dim)
  let multiplier = FloatVector(repeating: a.out_multiplier)
  for row in 0..<Int(a.num_rows) {
    let weights = Weights(a, row)
    if let lse = a.lse { lse[row] = weights.lse }
    let out = a.out.unsafelyUnwrapped + row * Int(a.out_stride) * Target.bytes
    var d = 0
    while d < dims {
      var sum = FloatVector(repeating: 0)
      @inline(__always)
      func add(_ side: mla_merge_side, _ weight: Float) {
        // A side without keys has no values either: what lies there may be NaN.
        guard let rows = side.out, weight != 0 else { return }
        let values = loadTail(
          Source.self, rows + (row * Int(side.out_stride) + d) * Source.bytes,
          (dims - d) * Source.bytes)
        sum = mla_multiply_add(values, FloatVector(repeating: weight), sum)
      }
      add(a.prefix, weights.prefix)
      add(a.suffix, weights.suffix)
      storeTail(Target.self, sum * multiplier, out + d * Target.bytes, dims - d)
      d += lanes
    }
  }
}

/// The weight of each side in a row, and the row's own lse.
private struct Weights {
  let prefix: Float
  let suffix: Float
  let lse: Float

  @inline(__always)
  init(_ a: mla_merge_rows_args, _ row: Int) {
    let (first, second) = (effectiveLSE(a.prefix, row), effectiveLSE(a.suffix, row))
    let largest = second > first ? second : first
    let reference = largest == -.infinity ? 0 : largest
    let (ofFirst, ofSecond) = (weight(first, reference), weight(second, reference))
    let sum = ofFirst + ofSecond
    let inverse = sum == 0 ? 0 : 1 / sum
    (prefix, suffix) = (ofFirst * inverse, ofSecond * inverse)
    lse = sum == 0 ? -.infinity : largest + mla_log(sum)
  }
}

@inline(__always)
private func weight(_ lse: Float, _ reference: Float) -> Float {
  lse == -.infinity ? 0 : mla_exp(lse - reference)
}

@inline(__always)
private func effectiveLSE(_ side: mla_merge_side, _ row: Int) -> Float {
  guard let lse = side.lse else { return -.infinity }
  return lse[row] == .infinity ? -.infinity : lse[row]
}
