import MLAKernelABI
import MLAShims

extension TileCall {
  /// Turns a panel's queries into right operands: a row of a tile is the same
  /// pair of dims of 16 queries. Queries that do not exist are zero.
  @inline(__always)
  func packQueries(_ panel: Int) {
    let pitch = Int(args.q_stride) * 2
    let rowBytes = Int(args.dims.qk_head_dim) * 2
    // The sign bits of both elements of a pair.
    let signs = SIMD16<UInt32>(repeating: args.scale < 0 ? 0x8000_8000 : 0)
    let spare = scratch.spare.assumingMemoryBound(to: FloatVector.self)
    for half in 0..<2 {
      let first = panel * panelQueries + half * lanes
      let rows = min(lanes, Int(args.num_queries) - first)
      let source = args.q.unsafelyUnwrapped + first * pitch
      for step in 0..<layout.depthSteps {
        let tile = (scratch.panel(panel).queries + (2 * step + half) * tileBytes)
          .assumingMemoryBound(to: FloatVector.self)
        for row in 0..<lanes {
          let pairs =
            row < rows
            ? loadTail(Float32Format.self, source + (row * pitch + step * 64), rowBytes - step * 64)
            : FloatVector(repeating: 0)
          tile[row] = mla_from_bits(mla_bits(pairs) ^ signs)
        }
        transposeTile(tile, spare)
      }
    }
  }
}
