import MLAKernelABI
import MLAShims

@inline(never)
func quantizeRows(_ args: UnsafePointer<mla_quantize_args>) {
  let a = args.pointee
  switch Int(a.format) {
  case MLA_FORMAT_BFLOAT16: quantize(BFloat16Format.self, a)
  case MLA_FORMAT_FLOAT16: quantize(Float16Format.self, a)
  default: quantize(Float32Format.self, a)
  }
}

@inline(__always)
private func quantize<Source: ElementFormat>(_: Source.Type, _ a: mla_quantize_args) {
  let dim = Int(a.row_dim)
  for row in 0..<Int(a.num_rows) {
    let source = a.rows.unsafelyUnwrapped + row * Int(a.row_stride) * Source.bytes
    let out = a.out.unsafelyUnwrapped + row * Int(a.out_stride)
    let scales = a.scales.unsafelyUnwrapped + row * Int(a.scale_stride)
    var (first, number) = (0, 0)
    while first < dim {
      let count = min(Int(a.scale_group), dim - first)
      let values = source + first * Source.bytes
      let scale = sharedScale(Source.self, values, count)
      scales.storeBytes(of: scale, toByteOffset: number * 4, as: Float.self)
      var d = 0
      while d < count {
        let x = loadTail(Source.self, values + d * Source.bytes, (count - d) * Source.bytes)
        // Not by the inverse, which may be subnormal.
        storeTail(Float8Format.self, x / scale, out + first + d, count - d)
        d += lanes
      }
      (first, number) = (first + count, number + 1)
    }
  }
}

/// The smallest power of two that brings all values within 448.
@inline(__always)
private func sharedScale<Source: ElementFormat>(
  _: Source.Type, _ values: UnsafeRawPointer, _ count: Int
) -> Float {
  var largest = FloatVector(repeating: 0)
  var d = 0
  while d < count {
    let x = loadTail(Source.self, values + d * Source.bytes, (count - d) * Source.bytes)
    // The second operand where the first is NaN.
    largest = mla_max(mla_from_bits(mla_bits(x) & 0x7fff_ffff), largest)
    d += lanes
  }
  var all: Float = 0
  for lane in 0..<lanes where largest[lane] > all { all = largest[lane] }
  let needed = max(min(all, .greatestFiniteMagnitude) / 448, 0x1p-13)
  // Up to the next exponent, unless nothing follows it.
  return Float(bitPattern: (needed.bitPattern &+ 0x7f_ffff) & 0x7f80_0000)
}
