import MLAShims

/// Up to 32 rows as operands of a product, 32 elements a step. What is not there
/// is zero.
struct RowSource<Operands: TileOperands> {
  let start: UnsafeRawPointer
  /// Elements from a row to the next.
  let stride: Int
  /// Elements of a row.
  let dim: Int
  let rows: Int

  @inline(__always) var steps: Int { (dim + 31) / 32 }

  @inline(__always)
  private func elements(row: Int, step: Int, part: Int) -> FloatVector {
    let bytes = Operands.Element.bytes
    return row < rows
      ? Operands.elements(part, start + (row * stride + step * 32) * bytes, (dim - step * 32) * bytes)
      : FloatVector(repeating: 0)
  }

  /// As left operands [step][part][2]: rows lie in their tiles as in memory.
  @inline(__always)
  func packLeft(into tiles: UnsafeMutableRawPointer) {
    for row in 0..<32 {
      let target = tiles + (row / 16 * tileBytes + row % 16 * 64)
      for step in 0..<steps {
        for part in 0..<Operands.parts {
          mla_store_f32(
            target + (step * Operands.parts + part) * partBytes,
            elements(row: row, step: step, part: part))
        }
      }
    }
  }

  /// As right operands [step][part][2], turned: a row of a tile is the same pair of
  /// elements of 16 rows.
  ///
  /// - Parameters:
  ///   - signs: bits to flip in each pair.
  ///   - spare: one more tile.
  @inline(__always)
  func packRight(
    signs: UInt32, into tiles: UnsafeMutableRawPointer,
    turning spare: UnsafeMutablePointer<FloatVector>
  ) {
    for tileIndex in 0..<steps * Operands.parts * 2 {
      let (step, part) = (tileIndex / 2 / Operands.parts, tileIndex / 2 % Operands.parts)
      let tile = (tiles + tileIndex * tileBytes).assumingMemoryBound(to: FloatVector.self)
      for lane in 0..<lanes {
        let pairs = elements(row: tileIndex % 2 * lanes + lane, step: step, part: part)
        tile[lane] = mla_from_bits(mla_bits(pairs) ^ SIMD16(repeating: signs))
      }
      transposeTile(tile, spare)
    }
  }
}
