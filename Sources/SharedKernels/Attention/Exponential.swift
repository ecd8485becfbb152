import MLAShims

/// 2^x for x <= 0 (and -inf, which gives 0; NaN stays NaN).
///
/// 2^x = 2^floor(x) * p(x - floor(x)) with p the polynomial of degree 5 of least
/// relative error on [0, 1): 7.5e-8, 1.6e-7 with fp32's rounding. Below -126 the
/// result may be flushed to 0.
@inline(__always)
func exp2(_ x: FloatVector) -> FloatVector {
  let (fraction, power) = splitExponent(x)
  var p = FloatVector(repeating: 0.00187757669)
  p = mla_multiply_add(p, fraction, FloatVector(repeating: 0.00898933969))
  p = mla_multiply_add(p, fraction, FloatVector(repeating: 0.0558263175))
  p = mla_multiply_add(p, fraction, FloatVector(repeating: 0.240153611))
  p = mla_multiply_add(p, fraction, FloatVector(repeating: 0.693153083))
  p = mla_multiply_add(p, fraction, FloatVector(repeating: 0.99999994))
  return scaleByPower(p, power)
}
