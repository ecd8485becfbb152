import MLAShims

/// The fraction of x above floor(x), and what `scaleByPower` scales by.
@inline(__always)
func splitExponent(_ x: FloatVector) -> (fraction: FloatVector, power: FloatVector) {
  (mla_fraction(x), x)
}

@inline(__always)
func scaleByPower(_ p: FloatVector, _ power: FloatVector) -> FloatVector {
  mla_scale_by_power(p, power)
}

/// Of `exp2`, on [0, 1).
@inline(__always) var exp2Coefficients: (Float, Float, Float, Float, Float) {
  (0.6931513, 0.2401645, 0.055799894, 0.00901703, 0.0018671311)
}
