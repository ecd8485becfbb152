import MLAShims

/// The e4m3fn codes of fp32 lanes, in their low bytes: rounded to nearest even,
/// saturated to +-448; NaN stays NaN.
@inline(__always)
func float8Codes(_ v: FloatVector) -> FloatVector {
  let bits = mla_bits(v)
  let magnitude = mla_from_bits(bits & 0x7fff_ffff)
  let largest = FloatVector(repeating: 448)
  let size = mla_select_ge(magnitude, largest, largest, magnitude)
  let sizeBits = mla_bits(size)
  let normal = ((sizeBits &+ 0x7ffff &+ ((sizeBits &>> 20) & 1)) &>> 20) &- ((127 - 7) << 3)
  // Below 2^-6 values are multiples of 2^-9: adding 2^14 leaves them, rounded to
  // even, in the last bits of the sum.
  let raised = FloatVector(repeating: 0x1p14)
  let subnormal = mla_bits(size + raised) &- mla_bits(raised)
  let finite = mla_select_ge(
    size, FloatVector(repeating: 0x1p-6), mla_from_bits(normal), mla_from_bits(subnormal))
  let nan = FloatVector(repeating: Float(bitPattern: 0x7f))
  let code = mla_bits(mla_select_eq(v, v, finite, nan))
  return mla_from_bits(code | ((bits &>> 24) & 0x80))
}
