import MLAShims

/// Lanes of a vector, and rows and columns of what `transpose` turns.
@inline(__always) var lanes: Int { FloatVector.scalarCount }

/// Transposes a square of lanes x lanes 32-bit elements.
///
/// Each stage interleaves row i with row i + lanes/2, which rotates the bits of
/// an element's (row, column) address by one; after log2(lanes) stages row and
/// column have changed places. The rows go back and forth between `a` and
/// `b`; the result is returned, in one of them.
@inline(__always)
func transpose(
  _ a: UnsafeMutablePointer<FloatVector>, _ b: UnsafeMutablePointer<FloatVector>
) -> UnsafeMutablePointer<FloatVector> {
  var from = a
  var to = b
  var stages = lanes
  while stages > 1 {
    for i in 0..<lanes / 2 {
      let low = from[i]
      let high = from[i + lanes / 2]
      to[2 * i] = mla_zip_low(low, high)
      to[2 * i + 1] = mla_zip_high(low, high)
    }
    swap(&from, &to)
    stages /= 2
  }
  return from
}
