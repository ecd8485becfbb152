import MLAShims

/// Writes the first elements of `source`, e4m3 times `multiplier`, as bf16, 32 at
/// once, and returns how many.
///
/// A code is an exponent e and a mantissa m, its magnitude (8 + m) * 2^(e - 10), or
/// m * 2^-9 where e is 0. Rounding to bf16 does not look at exponents: of the
/// products with `multiplier` sixteen are made, of 0, 1, ... 15 times 2^-9, and
/// e - 1 is added to the exponent of the one that is looked up.
@inline(__always)
func writeFloat8AsBFloat16(
  _ source: UnsafeRawPointer, to out: UnsafeMutableRawPointer, count: Int, times multiplier: Float
) -> Int {
  // So that no product is subnormal and none overflows.
  guard multiplier >= 0x1p-100, multiplier <= 0x1p100 else { return 0 }
  let steps = FloatVector(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
  let bits = mla_bits(steps * (multiplier * 0x1p-9))
  let products = mla_narrow_twice((bits &+ 0x7fff &+ ((bits &>> 16) & 1)) &>> 16)
  var d = 0
  while d + 2 * lanes <= count {
    // Two codes a lane; no sum or difference of theirs reaches the other.
    let code = mla_load_u8_pairs(source + d)
    let magnitude = code & 0x7f_007f
    let exponent = mla_subtract_pairs(magnitude & 0x78_0078, pairs(8))
    let value = mla_look_up_pairs(products, magnitude &- exponent) &+ (exponent &<< 4)
    // 1 for NaN, whose code is the last one.
    let isNaN = mla_subtract_pairs(magnitude, pairs(0x7e))
    let nan = (isNaN &<< 15) &- isNaN
    mla_store_pairs(out + d * 2, value | nan | ((code &<< 8) & 0x8000_8000))
    d += 2 * lanes
  }
  return d
}

@inline(__always)
private func pairs(_ number: UInt32) -> SIMD16<UInt32> {
  SIMD16(repeating: number << 16 | number)
}
