import MLAShims

/// 2^x for x <= 0 (and -inf, which gives 0; NaN stays NaN), but 0 from -100 down:
/// products with what is smaller could be subnormal numbers, which take many times as
/// long, for nothing.
@inline(__always)
func exp2(_ x: FloatVector) -> FloatVector { clearTiny(exp2WithTiny(x), x) }

/// 2^x for x <= 0, exact where x is a whole number, so that the largest score has
/// weight 1. On `Narrow` for x > -126 alone.
///
/// 2^x = 2^n * p(x - n) with n a whole number next to x and p the polynomial of degree 5
/// and p(0) = 1 of least relative error: 9.2e-8, 1.6e-7 with fp32's rounding.
@inline(__always)
func exp2WithTiny(_ x: FloatVector) -> FloatVector {
  let (fraction, power) = splitExponent(x)
  return scaleByPower(exp2(ofFraction: fraction), power)
}

@inline(__always)
func exp2(ofFraction fraction: FloatVector) -> FloatVector {
  let c = exp2Coefficients
  var p = FloatVector(repeating: c.4)
  p = mla_multiply_add(p, fraction, FloatVector(repeating: c.3))
  p = mla_multiply_add(p, fraction, FloatVector(repeating: c.2))
  p = mla_multiply_add(p, fraction, FloatVector(repeating: c.1))
  p = mla_multiply_add(p, fraction, FloatVector(repeating: c.0))
  return mla_multiply_add(p, fraction, FloatVector(repeating: 1))
}

/// `v`, or 0 where its exponent `x` is -100 or less.
@inline(__always)
func clearTiny(_ v: FloatVector, _ x: FloatVector) -> FloatVector {
  mla_select_ge(FloatVector(repeating: -100), x, FloatVector(repeating: 0), v)
}
