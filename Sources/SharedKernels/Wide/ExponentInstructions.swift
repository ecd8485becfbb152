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
