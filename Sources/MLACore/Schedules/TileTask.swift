/// The same keys and values of some neighbouring heads, to be packed into a block
/// for each.
struct PackTask: Equatable {
  let heads: Range<Int>
  /// Rows of k and v.
  let keys: Range<Int>
  /// The first head's place among the wave's packed blocks.
  let firstBlock: Int
  /// Blocks from one head's to the next one's.
  let blockStride: Int
}

/// A tile of queries and a range of the keys it may see.
struct AttendTask: Equatable {
  let head: Int
  /// Rows of q.
  let queries: Range<Int>
  /// Keys counted from the request's first.
  let keys: Range<Int>
  /// Query i sees the keys up to i + causalOffset.
  let causalOffset: Int
  /// The packed block that holds the request's key 0, or would: before the first
  /// one where a unit's memory holds a later key range.
  let firstBlock: Int
  /// Where a partial result goes; nil where this task is the whole tile.
  let partial: Int?
}

/// Partial results of a tile that are to be added, in their order and each by itself,
/// to the first one or the sum of those before; none where the tile has only one.
struct CombineTask: Equatable {
  let head: Int
  let queries: Range<Int>
  /// Numbers of partial results.
  let sum: Int
  let added: Range<Int>
  /// Whether the last of them makes the tile's result.
  let isLast: Bool
}

/// No mask: later than any key, and far from overflow.
let unmasked = Int.max / 2

extension TileSchedule {
  /// Some of what is to be packed before a wave's turn can be worked on.
  func packTask(_ index: Int, in wave: Wave, turn: Int) -> PackTask {
    let segment = wave.segment(of: index, \.pack)
    let blocks = segment.blocks(inTurn: turn)
    let (group, place) = (index - segment.first.pack).quotientAndRemainder(
      dividingBy: blocks.count)
    let first = group * segment.headsPerPack
    return packTask(
      segment, first..<min(first + segment.headsPerPack, segment.heads.count),
      blocks.lowerBound + place,
      firstBlock: segment.first.block + first * segment.blocksPerTurn + place,
      blockStride: segment.blocksPerTurn)
  }

  /// A unit's packing, for all of its heads; blocks are numbered within the key
  /// range.
  func packTask(_ block: Int, of unit: Segment) -> PackTask {
    packTask(
      unit, 0..<unit.heads.count, block, firstBlock: block % unit.blocksPerSplit,
      blockStride: unit.blocksPerSplit)
  }

  /// - Parameter heads: counted from the segment's first.
  private func packTask(
    _ segment: Segment, _ heads: Range<Int>, _ block: Int, firstBlock: Int, blockStride: Int
  ) -> PackTask {
    let end = segment.span.keyBegin + segment.span.keyCount
    let begin = segment.span.keyBegin + block * shape.keyBlock
    let first = segment.heads.lowerBound
    return PackTask(
      heads: first + heads.lowerBound..<first + heads.upperBound,
      keys: begin..<min(begin + shape.keyBlock, end), firstBlock: firstBlock,
      blockStride: blockStride)
  }

  /// nil for a tile that sees nothing of the range.
  func attendTask(_ index: Int, in wave: Wave, turn: Int) -> AttendTask? {
    let segment = wave.segment(of: index, \.task)
    let (tile, split) = (index - segment.first.task)
      .quotientAndRemainder(dividingBy: segment.splits(inTurn: turn).count)
    return attendTask(tile, split, turn: turn, segment)
  }

  /// A unit's tile against the one key range of a turn.
  func attendTask(_ tile: Int, turn: Int, of unit: Segment) -> AttendTask? {
    attendTask(tile, 0, turn: turn, unit)
  }

  /// - Parameters:
  ///   - index: the tile's place in the segment.
  ///   - place: the key range's in the turn.
  private func attendTask(_ index: Int, _ place: Int, turn: Int, _ segment: Segment)
    -> AttendTask?
  {
    let tile = Tile(index, of: segment, self)
    let split = turn * segment.splitsPerTurn + place
    guard split < tile.splits else { return nil }
    let keysPerSplit = segment.blocksPerSplit * shape.keyBlock
    let keyBegin = split * keysPerSplit
    return AttendTask(
      head: tile.head, queries: tile.queries,
      keys: keyBegin..<min(keyBegin + keysPerSplit, segment.span.keyCount),
      causalOffset: tile.causalOffset,
      firstBlock: segment.first.block
        + (tile.head - segment.heads.lowerBound) * segment.blocksPerTurn
        - segment.blocks(inTurn: turn).lowerBound,
      partial: tile.splits > 1 ? tile.firstPartial + place + min(turn, 1) : nil)
  }

  func combineTask(_ index: Int, in wave: Wave, turn: Int) -> CombineTask {
    let segment = wave.segment(of: index, \.tile)
    return combineTask(index - segment.first.tile, turn: turn, of: segment)
  }

  /// - Parameter index: the tile's place in the segment.
  func combineTask(_ index: Int, turn: Int, of segment: Segment) -> CombineTask {
    let tile = Tile(index, of: segment, self)
    // The first range of all is the beginning of the sum.
    let added = segment.splits(inTurn: turn).clamped(to: 1..<max(1, tile.splits))
    let first = tile.firstPartial + 1
    return CombineTask(
      head: tile.head, queries: tile.queries, sum: tile.firstPartial,
      added: first..<first + added.count, isLast: added.upperBound == tile.splits)
  }

  /// One head's tile of queries.
  private struct Tile {
    let head: Int
    /// Rows of q.
    let queries: Range<Int>
    let causalOffset: Int
    /// Key ranges of which it sees anything, at least 1.
    let splits: Int
    let firstPartial: Int

    init(_ index: Int, of segment: Segment, _ schedule: TileSchedule) {
      let (head, order) = index.quotientAndRemainder(dividingBy: segment.tilesPerHead)
      let (span, shape) = (segment.span, schedule.shape)
      // The last tile of a causal request sees the most keys.
      let begin = (segment.tilesPerHead - 1 - order) * shape.queryTile
      let end = min(begin + shape.queryTile, span.queryCount)
      self.head = segment.heads.lowerBound + head
      queries = span.queryBegin + begin..<span.queryBegin + end
      causalOffset = schedule.isCausal ? begin + span.keyCount - span.queryCount : unmasked
      let keysPerSplit = segment.blocksPerSplit * shape.keyBlock
      let seen = schedule.isCausal ? span.keyCount - (span.queryCount - end) : span.keyCount
      splits = max(1, (seen + keysPerSplit - 1) / keysPerSplit)
      firstPartial = segment.first.partial + index * segment.partialsPerTile
    }
  }
}
