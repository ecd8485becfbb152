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

/// A tile whose partial results are to be combined; nothing to do if `splits`
/// is 1.
struct CombineTask: Equatable {
  let head: Int
  let queries: Range<Int>
  let firstPartial: Int
  let splits: Int
}

/// No mask: later than any key, and far from overflow.
let unmasked = Int.max / 2

extension TileSchedule {
  /// What is to be packed before a wave can be worked on.
  ///
  /// - Parameter headsPerTask: most heads of a task, for keys that are dear to
  ///   fetch and serve several heads.
  func packTasks(in wave: Wave, headsPerTask: Int = 1) -> [PackTask] {
    var tasks: [PackTask] = []
    for segment in wave.segments {
      for first in stride(from: 0, to: segment.heads.count, by: headsPerTask) {
        let heads = first..<min(first + headsPerTask, segment.heads.count)
        for block in 0..<segment.blocksPerHead {
          tasks.append(
            packTask(
              segment, heads, block,
              firstBlock: segment.firstBlock + first * segment.blocksPerHead + block,
              blockStride: segment.blocksPerHead))
        }
      }
    }
    return tasks
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

  func attendTask(_ index: Int, in wave: Wave) -> AttendTask {
    let segment = wave.segment(of: index, \.endTask)
    let (tile, split) = (index - segment.firstTask).quotientAndRemainder(dividingBy: segment.splits)
    let head = tile / segment.tilesPerHead
    return attendTask(
      tile, split, segment, firstBlock: segment.firstBlock + head * segment.blocksPerHead)
  }

  /// A unit's tile against a key range whose blocks are packed as `packTask` says.
  func attendTask(_ tile: Int, split: Int, of unit: Segment) -> AttendTask {
    let head = tile / unit.tilesPerHead
    return attendTask(tile, split, unit, firstBlock: (head - split) * unit.blocksPerSplit)
  }

  /// - Parameter index: the tile's place in the segment.
  private func attendTask(_ index: Int, _ split: Int, _ segment: Segment, firstBlock: Int)
    -> AttendTask
  {
    let (head, order) = index.quotientAndRemainder(dividingBy: segment.tilesPerHead)
    // The last tile of a causal request sees the most keys.
    let tile = segment.tilesPerHead - 1 - order
    let begin = tile * shape.queryTile
    let keysPerSplit = segment.blocksPerSplit * shape.keyBlock
    let keyBegin = split * keysPerSplit
    return AttendTask(
      head: segment.heads.lowerBound + head,
      queries: queries(ofTile: tile, segment),
      keys: keyBegin..<min(keyBegin + keysPerSplit, segment.span.keyCount),
      causalOffset: isCausal
        ? begin + segment.span.keyCount - segment.span.queryCount : unmasked,
      firstBlock: firstBlock,
      partial: segment.splits > 1 ? segment.firstPartial + index * segment.splits + split : nil)
  }

  func combineTask(_ index: Int, in wave: Wave) -> CombineTask {
    let segment = wave.segment(of: index, \.endTile)
    return combineTask(index - segment.firstTile, of: segment)
  }

  /// - Parameter index: the tile's place in the segment.
  func combineTask(_ index: Int, of segment: Segment) -> CombineTask {
    let (head, order) = index.quotientAndRemainder(dividingBy: segment.tilesPerHead)
    return CombineTask(
      head: segment.heads.lowerBound + head,
      queries: queries(ofTile: segment.tilesPerHead - 1 - order, segment),
      firstPartial: segment.firstPartial + index * segment.splits, splits: segment.splits)
  }

  private func queries(ofTile tile: Int, _ segment: Segment) -> Range<Int> {
    let begin = tile * shape.queryTile
    let end = min(begin + shape.queryTile, segment.span.queryCount)
    return segment.span.queryBegin + begin..<segment.span.queryBegin + end
  }
}

extension TileSchedule.Wave {
  /// The segment that a number belongs to, by binary search.
  fileprivate func segment(of index: Int, _ end: KeyPath<TileSchedule.Segment, Int>)
    -> TileSchedule.Segment
  {
    var low = 0
    var high = segments.count - 1
    while low < high {
      let middle = (low + high) / 2
      if segments[middle][keyPath: end] <= index { low = middle + 1 } else { high = middle }
    }
    return segments[low]
  }
}
