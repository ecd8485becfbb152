import MLAShims

/// Lanes of a vector, and rows and columns of a tile.
@inline(__always) var lanes: Int { FloatVector.scalarCount }

/// Turns the 16 x 16 pairs of a tile in place; `spare` is one more tile.
@inline(__always)
func transposeTile(
  _ tile: UnsafeMutablePointer<FloatVector>, _ spare: UnsafeMutablePointer<FloatVector>
) {
  transposeTile(from: tile, pitch: 1, tile, spare)
}

/// The same of rows `pitch` vectors apart.
///
/// First four rows at a time, within each four lanes:
///
///     rows 4k ... 4k+3  ->  4 vectors m, of which the four j is column 4j+m
///
/// Then the fours of vectors of equal m, one for each k, change places: the four j of
/// vector k becomes the four k of column 4j+m.
@inline(__always)
func transposeTile(
  from first: UnsafePointer<FloatVector>, pitch: Int, _ tile: UnsafeMutablePointer<FloatVector>,
  _ spare: UnsafeMutablePointer<FloatVector>
) {
  for k in 0..<4 {
    let rows = first + 4 * k * pitch
    let (row0, row1, row2, row3) = (rows[0], rows[pitch], rows[2 * pitch], rows[3 * pitch])
    let (low01, high01) = (mla_zip_low(row0, row1), mla_zip_high(row0, row1))
    let (low23, high23) = (mla_zip_low(row2, row3), mla_zip_high(row2, row3))
    spare[k] = mla_zip_low_pairs(low01, low23)
    spare[4 + k] = mla_zip_high_pairs(low01, low23)
    spare[8 + k] = mla_zip_low_pairs(high01, high23)
    spare[12 + k] = mla_zip_high_pairs(high01, high23)
  }
  for m in 0..<4 {
    let from = spare + 4 * m
    let (even01, odd01) = (mla_even_fours(from[0], from[1]), mla_odd_fours(from[0], from[1]))
    let (even23, odd23) = (mla_even_fours(from[2], from[3]), mla_odd_fours(from[2], from[3]))
    tile[m] = mla_even_fours(even01, even23)
    tile[4 + m] = mla_even_fours(odd01, odd23)
    tile[8 + m] = mla_odd_fours(even01, even23)
    tile[12 + m] = mla_odd_fours(odd01, odd23)
  }
}
