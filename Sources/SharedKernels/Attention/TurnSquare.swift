import MLAShims

/// Lanes of a vector, and rows and columns of what `turnSquare` turns.
@inline(__always) var lanes: Int { FloatVector.scalarCount }

/// Hands out the columns of `lanes` rows of as many 32-bit elements, `stride` bytes
/// apart.
///
/// Four columns of every fourth row come into a vector as it is loaded, so that what
/// changes places does so within four lanes:
///
///     rows m, m+4, m+8, m+12 of columns 4j ... 4j+3  ->  vector m; its four k is row
///                                                        m+4k
///     four k of vectors 0 ... 3, turned              ->  rows 4k ... 4k+3 of each of
///                                                        the four columns
@inline(__always)
func turnSquare(
  _ rows: UnsafeRawPointer, stride: Int, _ body: (_ column: Int, _ v: FloatVector) -> Void
) {
  for j in 0..<lanes / 4 {
    @inline(__always)
    func vector(_ m: Int) -> FloatVector {
      mla_load_fours(rows + (m * stride + j * 16), Int64(4 * stride))
    }
    let (v0, v1, v2, v3) = (vector(0), vector(1), vector(2), vector(3))
    let (low01, high01) = (mla_zip_low(v0, v1), mla_zip_high(v0, v1))
    let (low23, high23) = (mla_zip_low(v2, v3), mla_zip_high(v2, v3))
    body(4 * j, mla_zip_low_pairs(low01, low23))
    body(4 * j + 1, mla_zip_high_pairs(low01, low23))
    body(4 * j + 2, mla_zip_low_pairs(high01, high23))
    body(4 * j + 3, mla_zip_high_pairs(high01, high23))
  }
}
