/// The same keys and values of some neighbouring heads of keys, to be packed into a block
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
  /// Of queries.
  let head: Int
  /// Rows of q.
  let queries: Range<Int>
  /// Keys counted from the request's first.
  let keys: Range<Int>
  /// Query i sees the keys up to i + causalOffset.
  let causalOffset: Int
  /// The packed block that holds the request's key 0, or would: before the first one
  /// in a later turn.
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

extension TileSchedule {
  /// Some of what is to be packed before a wave's turn can be worked on.
  func packTask(_ index: Int, in wave: Wave, turn: Int) -> PackTask {
    let segment = waves.segment(of: index, in: wave) { $0.pack }
    let blocks = segment.blocks(inTurn: turn)
    let (pack, block) = (index - segment.place.pack).quotientAndRemainder(
      dividingBy: blocks.count)
    let first = pack * segment.headsPerPack
    let head = segment.heads.lowerBound + first
    let span = segment.request.span
    let keyBegin = span.keyBegin + (blocks.lowerBound + block) * shape.keyBlock
    return PackTask(
      heads: head..<min(head + segment.headsPerPack, segment.heads.upperBound),
      keys: keyBegin..<min(keyBegin + shape.keyBlock, span.keyBegin + span.keyCount),
      firstBlock: segment.place.block + first * segment.blocksPerTurn + block,
      blockStride: segment.blocksPerTurn)
  }

  /// nil for a tile that sees nothing of the range.
  func attendTask(_ index: Int, in wave: Wave, turn: Int) -> AttendTask? {
    let segment = waves.segment(of: index, in: wave) { $0.task }
    let ranges = segment.ranges(inTurn: turn)
    // A cache holds a range's packed keys until all of its tiles have met them.
    let tiles = segment.request.tilesPerKeyHead
    let (step, member) = (index - segment.place.task).quotientAndRemainder(dividingBy: tiles)
    let (keyHead, place) = step.quotientAndRemainder(dividingBy: ranges.count)
    let tile = Tile(keyHead * tiles + member, of: segment, self)
    let range = ranges.lowerBound + place
    guard range < tile.ranges else { return nil }
    let keysPerRange = segment.request.blocksPerRange * shape.keyBlock
    let keyBegin = range * keysPerRange
    return AttendTask(
      head: tile.head, queries: tile.queries,
      keys: keyBegin..<min(keyBegin + keysPerRange, segment.request.span.keyCount),
      causalOffset: tile.causalOffset,
      firstBlock: segment.place.block
        + (tile.keyHead - segment.heads.lowerBound) * segment.blocksPerTurn
        - segment.blocks(inTurn: turn).lowerBound,
      partial: tile.ranges > 1 ? tile.firstPartial + place + min(turn, 1) : nil)
  }

  func combineTask(_ index: Int, in wave: Wave, turn: Int) -> CombineTask {
    let segment = waves.segment(of: index, in: wave) { $0.tile }
    let tile = Tile(index - segment.place.tile, of: segment, self)
    // The first range of all is the beginning of the sum.
    let added = segment.ranges(inTurn: turn).clamped(to: 1..<max(1, tile.ranges))
    let first = tile.firstPartial + 1
    return CombineTask(
      head: tile.head, queries: tile.queries, sum: tile.firstPartial,
      added: first..<first + added.count, isLast: added.upperBound == tile.ranges)
  }

  /// One head's tile of queries.
  private struct Tile {
    let keyHead: Int
    let head: Int
    /// Rows of q.
    let queries: Range<Int>
    let causalOffset: Int
    /// Those of which it sees anything, at least 1.
    let ranges: Int
    let firstPartial: Int

    /// - Parameter index: counted from the segment's first.
    init(_ index: Int, of segment: Segment, _ schedule: TileSchedule) {
      let (request, span, shape) = (segment.request, segment.request.span, schedule.shape)
      let (keyHead, tile) = index.quotientAndRemainder(dividingBy: request.tilesPerKeyHead)
      let (order, member) = tile.quotientAndRemainder(dividingBy: request.headsPerKeyHead)
      // The last tile of a causal request sees the most keys.
      let begin = (request.tiles - 1 - order) * shape.queryTile
      let end = min(begin + shape.queryTile, span.queryCount)
      self.keyHead = segment.heads.lowerBound + keyHead
      head = self.keyHead * request.headsPerKeyHead + member
      queries = span.queryBegin + begin..<span.queryBegin + end
      causalOffset = begin + span.causalOffset
      let keysPerRange = request.blocksPerRange * shape.keyBlock
      ranges = max(1, (span.keysSeen(by: end - 1) + keysPerRange - 1) / keysPerRange)
      firstPartial = segment.place.partial + index * segment.partialsPerTile
    }
  }
}
