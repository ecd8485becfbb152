import MLAShims

/// Lanes of a vector, and rows and columns of what `transpose` turns.
@inline(__always) var lanes: Int { FloatVector.scalarCount }

/// Transposes a square of lanes x lanes 32-bit elements.
///
/// Each stage interleaves row i with row i + lanes/2, which rotates the bits of
/// an element's (row, column) address by one; after log2(lanes) stages row and
/// column have changed places. The rows go back and forth between `a` and
/// `b`, two stages a time; the result is returned, in one of them.
@inline(__always)
func transpose(
  _ a: UnsafeMutablePointer<FloatVector>, _ b: UnsafeMutablePointer<FloatVector>
) -> UnsafeMutablePointer<FloatVector> {
  var from = a
  var to = b
  var stages = lanes
  while stages > 2 {
    for i in 0..<lanes / 4 { interleaveTwice(from + i, to + 4 * i) }
    swap(&from, &to)
    stages /= 4
  }
  if stages > 1 {
    for i in 0..<lanes / 2 {
      let low = from[i]
      let high = from[i + lanes / 2]
      to[2 * i] = mla_zip_low(low, high)
      to[2 * i + 1] = mla_zip_high(low, high)
    }
    swap(&from, &to)
  }
  return from
}

/// Two stages of the four rows that only exchange elements with each other.
@inline(__always)
private func interleaveTwice(
  _ from: UnsafePointer<FloatVector>, _ to: UnsafeMutablePointer<FloatVector>
) {
  let quarter = lanes / 4
  let even0 = mla_zip_low(from[0], from[2 * quarter])
  let even1 = mla_zip_high(from[0], from[2 * quarter])
  let odd0 = mla_zip_low(from[quarter], from[3 * quarter])
  let odd1 = mla_zip_high(from[quarter], from[3 * quarter])
  to[0] = mla_zip_low(even0, odd0)
  to[1] = mla_zip_high(even0, odd0)
  to[2] = mla_zip_low(even1, odd1)
  to[3] = mla_zip_high(even1, odd1)
}
