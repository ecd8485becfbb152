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
    for step in 0..<steps {
      for half in 0..<2 {
        let first = tiles + (step * Operands.parts * partBytes + half * tileBytes)
        for lane in 0..<lanes {
          forEachPart(Operands.self, row(half * lanes + lane), dim: dim, step: step) {
            mla_store_f32(
              first + ($0 * partBytes + lane * 64),
              mla_from_bits(mla_bits($1) ^ SIMD16(repeating: signs)))
          }
        }
        for part in 0..<Operands.parts {
          transposeTile(
            (first + part * partBytes).assumingMemoryBound(to: FloatVector.self), spare)
        }
      }
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
    forEachPart(Operands.self, row, dim: dim, step: step) {
      mla_store_f32(target + (step * Operands.parts + $0) * partBytes, $1)
    }
  }
}

@inline(__always)
private func forEachPart<Operands: TileOperands>(
  _: Operands.Type, _ row: UnsafeRawPointer?, dim: Int, step: Int,
  _ body: (_ part: Int, _ v: FloatVector) -> Void
) {
  let bytes = Operands.Element.bytes
  Operands.forEachPart(
    ofAny: row.map { $0 + step * 32 * bytes }, (dim - step * 32) * bytes, body)
}
