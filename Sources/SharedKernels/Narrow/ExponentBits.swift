import MLAShims

// 2^floor(x) by building the exponent's bits, for instruction sets without a
// scaling instruction.

/// The fraction of x above floor(x), and floor(x), clamped to -127: the
/// exponent bits of 2^-127 are those of zero.
@inline(__always)
func splitExponent(_ x: FloatVector) -> (fraction: FloatVector, power: FloatVector) {
  let clamped = mla_max(FloatVector(repeating: -127), x)
  let floor = floorOf(clamped)
  return (clamped - floor, floor)
}

@inline(__always)
func scaleByPower(_ p: FloatVector, _ power: FloatVector) -> FloatVector {
  let exponent = mla_bits(unsafeBitCast(mla_to_int(power) &+ 127, to: FloatVector.self)) &<< 23
  return p * mla_from_bits(exponent)
}

/// Truncation, corrected where it went up; exact below 2^31.
@inline(__always)
private func floorOf(_ x: FloatVector) -> FloatVector {
  let truncated = mla_to_float(mla_to_int(x))
  return mla_select_ge(x, truncated, truncated, truncated - 1)
}
