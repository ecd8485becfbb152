import MLAKernelABI

/// Attention of tiles whose heads share keys to ranges of these, and what comes of a tile's
/// ranges.
struct SharedKeyAttention<Keys: KeySource> {
  let shape: SharedKeyShape
  let kernel: mla_attention_kernel
  let table: KernelTable
  let dims: mla_kernel_dims
  let scale: Float
  let type: ElementType
  let keys: Keys
  let scratch: SharedKeyScratch
  /// Of the wave that is worked on.
  var partials: UnsafeMutablePointer<Float>

  /// Rows of a tile's queries, for each token those of all heads.
  struct Queries {
    let start: UnsafeMutableRawPointer
    /// In elements.
    let stride: Int
  }

  func attend(
    _ task: SharedKeySchedule.Task, _ queries: Queries, scratch: UnsafeMutableRawPointer
  ) {
    let tile = task.tile
    var begin = task.keys.lowerBound
    // Once without keys: that, too, is a result.
    repeat {
      let end = min(begin + shape.keysPerPack, task.keys.upperBound)
      pack(begin..<end, of: tile, scratch)
      attend(
        task, queries, rows: 0..<tile.span.queryCount * shape.numHeads, keyCount: end - begin,
        isFirst: begin == task.keys.lowerBound, scratch)
      begin = end
    } while begin < task.keys.upperBound
    let shared = tile.sharedKeys
    guard task.isLast, tile.span.keyCount > shared else { return }
    pack(shared..<tile.span.keyCount, of: tile, scratch)
    for token in 1..<tile.span.queryCount {
      let more = tile.span.keysSeen(by: token) - shared
      if more == 0 { continue }
      let first = token * shape.numHeads
      attend(
        task, queries, rows: first..<first + shape.numHeads, keyCount: more, isFirst: false,
        scratch)
    }
  }

  /// Packs up to `keysPerPack` keys, counted from the request's first.
  private func pack(
    _ keys: Range<Int>, of tile: SharedKeySchedule.Tile, _ scratch: UnsafeMutableRawPointer
  ) {
    let block = Int(kernel.key_block)
    let blockBytes = Int(kernel.packed_block_bytes(dims))
    let packed = scratch + self.scratch.packedOffset
    let keyBegin = tile.span.keyBegin
    for begin in stride(from: keys.lowerBound, to: keys.upperBound, by: block) {
      let end = min(begin + block, keys.upperBound)
      let task = PackTask(
        heads: tile.keyHead..<tile.keyHead + 1, keys: keyBegin + begin..<keyBegin + end,
        firstBlock: (begin - keys.lowerBound) / block, blockStride: 0)
      self.keys.pack(
        task, before: nil, into: { packed + $0 * blockBytes }, scratch: scratch)
    }
  }

  /// Adds the first `keyCount` packed keys to the partial results of some rows.
  private func attend(
    _ task: SharedKeySchedule.Task, _ queries: Queries, rows: Range<Int>, keyCount: Int,
    isFirst: Bool, _ scratch: UnsafeMutableRawPointer
  ) {
    let more = (scratch + self.scratch.partialOffset).assumingMemoryBound(to: Float.self)
    for begin in stride(from: rows.lowerBound, to: rows.upperBound, by: Int(kernel.query_tile)) {
      let count = min(Int(kernel.query_tile), rows.upperBound - begin)
      let sum = partialRows(task.tile, range: task.range) + begin * rowFloats
      var args = mla_attend_args(
        dims: dims, q: queries.start + begin * queries.stride * type.bytes,
        q_stride: Int64(queries.stride), num_queries: Int64(count),
        packed: scratch + self.scratch.packedOffset, key_begin: 0, key_end: Int64(keyCount),
        causal_offset: Int64(unmasked), scale: scale, format: type.rawValue,
        out_format: Int32(MLA_FORMAT_PARTIAL), out_multiplier: 1, out: isFirst ? sum : more,
        out_stride: Int64(rowFloats), lse: nil, scratch: scratch + self.scratch.kernelOffset,
        next_q: nil)
      kernel.attend(&args)
      if isFirst { continue }
      var adding = mla_combine_args()
      adding.num_rows = Int64(count)
      adding.v_head_dim = dims.v_head_dim
      (adding.sum, adding.row_stride) = (sum, Int64(rowFloats))
      (adding.added, adding.num_added) = (UnsafePointer(more), 1)
      table.combine(adding)
    }
  }

  /// One head's results of all of a tile's keys, and its lse.
  ///
  /// - Parameters:
  ///   - head: counted from the first that shares the tile's keys.
  ///   - outStride: in elements, from a token to the next.
  func combine(
    _ tile: SharedKeySchedule.Tile, head: Int, into out: UnsafeMutableRawPointer,
    outStride: Int, _ outType: ElementType, times multiplier: Float,
    lse: UnsafeMutablePointer<Float>?
  ) {
    let sum = partialRows(tile, range: 0) + head * rowFloats
    let tokenFloats = shape.numHeads * rowFloats
    let rangeFloats = tile.span.queryCount * tokenFloats
    table.combine(
      mla_combine_args(
        num_rows: Int64(tile.span.queryCount), v_head_dim: dims.v_head_dim, sum: sum,
        row_stride: Int64(tokenFloats), added: sum + rangeFloats,
        added_stride: Int64(rangeFloats), num_added: Int64(tile.ranges - 1),
        out_format: outType.rawValue, out_multiplier: multiplier, out: out,
        out_stride: Int64(outStride), lse: lse))
  }

  /// A tile's results of one range, for each token those of all heads.
  func partialRows(_ tile: SharedKeySchedule.Tile, range: Int)
    -> UnsafeMutablePointer<Float>
  {
    let rows = range * tile.span.queryCount * shape.numHeads
    return partials + (tile.place.partial + rows) * rowFloats
  }

  private var rowFloats: Int { shape.partialFloats }
}
