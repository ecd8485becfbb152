import MLAShims

// 2^x by building the exponent's bits, for instruction sets without a scaling
// instruction.

/// x less the nearest whole number, and a number whose last bits are that one: of a sum
/// with 1.5 * 2^23 nothing else is left. For x from -2^22 to 2^22.
@inline(__always)
func splitExponent(_ x: FloatVector) -> (fraction: FloatVector, power: FloatVector) {
  let raise = FloatVector(repeating: 0x1.8p23)
  let raised = x + raise
  return (x - (raised - raise), raised)
}

/// p * 2^power of `splitExponent`, for powers from -126 up.
@inline(__always)
func scaleByPower(_ p: FloatVector, _ power: FloatVector) -> FloatVector {
  p * mla_from_bits((mla_bits(power) &<< 23) &+ mla_bits(FloatVector(repeating: 1)))
}

/// Of `exp2`, on [-1/2, 1/2].
@inline(__always) var exp2Coefficients: (Float, Float, Float, Float, Float) {
  (0.69314694, 0.24022238, 0.05550736, 0.009671511, 0.0013264733)
}
