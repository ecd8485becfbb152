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

  /// nil: it is not there.
  @inline(__always)
  private func row(_ row: Int) -> UnsafeRawPointer? {
    row < rows ? start + row * stride * Operands.Element.bytes : nil
  }

  /// As left operands [step][part][2]: rows lie in their tiles as in memory.
  @inline(__always)
  func packLeft(into tiles: UnsafeMutableRawPointer) {
    for i in 0..<32 { packLeftRow(Operands.self, row(i), i, dim: dim, into: tiles) }
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
        let pairs = elements(
          Operands.self, row(tileIndex % 2 * lanes + lane), dim: dim, step: step, part: part)
        tile[lane] = mla_from_bits(mla_bits(pairs) ^ SIMD16(repeating: signs))
      }
      transposeTile(tile, spare)
    }
  }
}

/// Row `i` of left operands, wherever it lies.
@inline(__always)
func packLeftRow<Operands: TileOperands>(
  _: Operands.Type, _ row: UnsafeRawPointer?, _ i: Int, dim: Int,
  into tiles: UnsafeMutableRawPointer
) {
  let target = tiles + (i / 16 * tileBytes + i % 16 * 64)
  for step in 0..<(dim + 31) / 32 {
    for part in 0..<Operands.parts {
      mla_store_f32(
        target + (step * Operands.parts + part) * partBytes,
        elements(Operands.self, row, dim: dim, step: step, part: part))
    }
  }
}

@inline(__always)
private func elements<Operands: TileOperands>(
  _: Operands.Type, _ row: UnsafeRawPointer?, dim: Int, step: Int, part: Int
) -> FloatVector {
  guard let row else { return FloatVector(repeating: 0) }
  let bytes = Operands.Element.bytes
  return Operands.elements(part, row + step * 32 * bytes, (dim - step * 32) * bytes)
}
