import MLAShims

/// Turns scores into probabilities relative to `reference`, in place, and returns the sum of
/// the unrounded ones. A step's are
///
///     [half][vector of queries]   a vector: two pairs of its queries, four keys of each
///
/// so that what is done to a row is done vector by vector.
@inline(__always)
func exponentiate<Row: QueryRow>(
  _ scores: UnsafeMutablePointer<FloatVector>, keys: Int, reference: Row
) -> Row {
  var evenSum = Row.repeating(FloatVector(repeating: 0))
  var oddSum = evenSum
  for step in 0..<keys / elementsPerStep {
    @inline(__always)
    func pair(_ key: Int) -> Row {
      let p = scores + (step * elementsPerStep + key) * Row.width
      let even = Row.load(p).combined(reference) { probability($0 - $1) }
      let odd = Row.load(p + Row.width).combined(reference) { probability($0 - $1) }
      evenSum = evenSum.combined(even) { $0 + $1 }
      oddSum = oddSum.combined(odd) { $0 + $1 }
      return even.combined(odd, mla_round_rows)
    }
    let (a, b) = (pair(0), pair(2))
    let p = scores + step * 2 * Row.width
    a.combined(b, mla_turn_low).store(p)
    a.combined(b, mla_turn_high).store(p + Row.width)
  }
  return evenSum.combined(oddSum) { $0 + $1 }
}

/// 2^x for x <= 0 (and -inf, which gives 0; NaN stays NaN), less exact than `exp2` below 2^-126
/// alone, which multiplications take for 0: a power of two is added to the exponent, and is
/// none that there is no exponent for.
@inline(__always)
private func probability(_ x: FloatVector) -> FloatVector {
  let (fraction, power) = splitExponent(mla_max_or_nan(x, FloatVector(repeating: -127)))
  return mla_from_bits(mla_bits(exp2(ofFraction: fraction)) &+ (mla_bits(power) &<< 23))
}
