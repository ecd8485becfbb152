import MLAShims

// Rows of bf16 as operands of a product, 32 elements a step. What is not there
// is zero.

/// Up to 32 rows as left operands [step][2]: rows lie in their tiles as in memory.
@inline(__always)
func packLeftRows(
  _ source: UnsafeRawPointer, pitch: Int, rowBytes: Int, rows: Int, steps: Int,
  into tiles: UnsafeMutableRawPointer
) {
  for row in 0..<32 {
    let target = tiles + (row / 16 * tileBytes + row % 16 * 64)
    for step in 0..<steps {
      let operand =
        row < rows
        ? loadTail(Float32Format.self, source + (row * pitch + step * 64), rowBytes - step * 64)
        : FloatVector(repeating: 0)
      mla_store_f32(target + step * 2 * tileBytes, operand)
    }
  }
}

/// Up to 32 rows as right operands [step][2], turned: a row of a tile is the
/// same pair of elements of 16 rows.
///
/// - Parameters:
///   - signs: bits to flip in each pair.
///   - spare: one more tile.
@inline(__always)
func packRightRows(
  _ source: UnsafeRawPointer, pitch: Int, rowBytes: Int, rows: Int, steps: Int, signs: UInt32,
  into tiles: UnsafeMutableRawPointer, turning spare: UnsafeMutablePointer<FloatVector>
) {
  for half in 0..<2 {
    for step in 0..<steps {
      let tile = (tiles + (2 * step + half) * tileBytes).assumingMemoryBound(to: FloatVector.self)
      for lane in 0..<lanes {
        let row = half * lanes + lane
        let pairs =
          row < rows
          ? loadTail(Float32Format.self, source + (row * pitch + step * 64), rowBytes - step * 64)
          : FloatVector(repeating: 0)
        tile[lane] = mla_from_bits(mla_bits(pairs) ^ SIMD16(repeating: signs))
      }
      transposeTile(tile, spare)
    }
  }
}

/// Turns the 16 x 16 pairs of a tile in place; `spare` is one more tile.
@inline(__always)
func transposeTile(
  _ tile: UnsafeMutablePointer<FloatVector>, _ spare: UnsafeMutablePointer<FloatVector>
) {
  // The stages, an even number of them, go back and forth and end where they began.
  _ = transpose(tile, spare)
}
