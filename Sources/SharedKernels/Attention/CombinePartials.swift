import MLAKernelABI
import MLAShims

/// Weighted mean of partial results, see `mla_combine_args`. All fp32 inside;
/// partials are added in the order in which they are given.
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

/// The weight of each partial in this row, out_multiplier included; returns the
/// row's own lse.
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
  for i in 0..<Int(a.num_partials) { weights[i] *= a.out_multiplier / sum }
  return largest + mla_log(sum)
}

@inline(__always)
private func writeRow<Source: ElementFormat, Target: TargetFormat>(
  _: Source.Type, _: Target.Type, _ a: mla_combine_args, _ row: Int,
  _ weights: UnsafePointer<Float>
) {
  let dims = Int(a.v_head_dim)
  let out = a.out.unsafelyUnwrapped + row * Int(a.out_stride) * Target.bytes
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
    storeTail(Target.self, sum, out + d * Target.bytes, dims - d)
    d += lanes
  }
}

@inline(__always)
private func effectiveLSE(_ partial: mla_partial, _ row: Int) -> Float {
  let lse = partial.lse[row * Int(partial.lse_stride)]
  return lse == .infinity ? -.infinity : lse
}

/// e4m3fn: rounds to nearest even, saturates to +-448, keeps NaN.
private enum Float8Format: TargetFormat {
  @inline(__always) static var bytes: Int { 1 }

  @inline(__always) static func store(_ v: FloatVector, _ p: UnsafeMutableRawPointer) {
    for lane in 0..<lanes { p.storeBytes(of: encode(v[lane]), toByteOffset: lane, as: UInt8.self) }
  }

  @inline(__always) private static func encode(_ x: Float) -> UInt8 {
    let sign = UInt8(truncatingIfNeeded: (x.bitPattern >> 24) & 0x80)
    let bits = x.bitPattern & 0x7fff_ffff
    if bits > 0x7f80_0000 { return sign | 0x7f }
    // 448 is 0x43e00000; everything above rounds to it or saturates.
    if bits >= 0x43e0_0000 { return sign | 0x7e }
    // Below 2^-6 values are multiples of 2^-9: adding 2^14 leaves them, rounded
    // to even, in the last bits of the sum.
    if bits < 0x3c80_0000 {
      let sum = Float(bitPattern: bits) + 16384
      return sign | UInt8(truncatingIfNeeded: sum.bitPattern &- Float(16384).bitPattern)
    }
    let rounded = bits &+ 0x7ffff &+ ((bits >> 20) & 1)
    return sign | UInt8(truncatingIfNeeded: (rounded >> 20) &- ((127 - 7) << 3))
  }
}
