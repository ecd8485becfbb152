import MLAShims

/// Lanes of a vector, and rows and columns of what `transpose` turns.
@inline(__always) var lanes: Int { FloatVector.scalarCount }

/// Transposes a square of lanes x lanes 32-bit elements: rows are asked for, the
/// result is returned, in `a` or in `b`.
///
/// First four rows at a time, within each four lanes:
///
///     rows 4k ... 4k+3  ->  4 vectors m, of which the four j is column 4j+m
///
/// Then the fours of vectors of equal m, one for each k, change places: the four j of
/// vector k becomes the four k of column 4j+m.
@inline(__always)
func transpose(
  _ a: UnsafeMutablePointer<FloatVector>, _ b: UnsafeMutablePointer<FloatVector>,
  row: (Int) -> FloatVector
) -> UnsafeMutablePointer<FloatVector> {
  let fours = lanes / 4
  for k in 0..<fours {
    let (r0, r1, r2, r3) = (row(4 * k), row(4 * k + 1), row(4 * k + 2), row(4 * k + 3))
    let (low01, high01) = (mla_zip_low(r0, r1), mla_zip_high(r0, r1))
    let (low23, high23) = (mla_zip_low(r2, r3), mla_zip_high(r2, r3))
    a[k] = mla_zip_low_pairs(low01, low23)
    a[fours + k] = mla_zip_high_pairs(low01, low23)
    a[2 * fours + k] = mla_zip_low_pairs(high01, high23)
    a[3 * fours + k] = mla_zip_high_pairs(high01, high23)
  }
  if fours == 1 { return a }
  for m in 0..<4 {
    let from = a + m * fours
    if fours == 2 {
      b[m] = mla_even_fours(from[0], from[1])
      b[4 + m] = mla_odd_fours(from[0], from[1])
    } else {
      let (even01, odd01) = (mla_even_fours(from[0], from[1]), mla_odd_fours(from[0], from[1]))
      let (even23, odd23) = (mla_even_fours(from[2], from[3]), mla_odd_fours(from[2], from[3]))
      b[m] = mla_even_fours(even01, even23)
      b[4 + m] = mla_even_fours(odd01, odd23)
      b[8 + m] = mla_odd_fours(even01, even23)
      b[12 + m] = mla_odd_fours(odd01, odd23)
    }
  }
  return b
}
