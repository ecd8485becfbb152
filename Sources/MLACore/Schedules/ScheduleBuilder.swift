/// Gathers pairs into waves, splitting a request's heads where a wave is full.
struct ScheduleBuilder {
  let shape: TileShape
  let split: SplitRule
  let numHeads: Int
  let isCausal: Bool
  let blocksPerWave: Int
  private var waves: [TileSchedule.Wave] = []
  private var current = TileSchedule.Wave()

  init(shape: TileShape, split: SplitRule, numHeads: Int, isCausal: Bool, blocksPerWave: Int) {
    self.shape = shape
    self.split = split
    self.numHeads = numHeads
    self.isCausal = isCausal
    self.blocksPerWave = blocksPerWave
  }

  /// All heads of a request.
  func whole(_ span: RequestSpan) -> TileSchedule.Segment {
    let tiles = (span.queryCount + shape.queryTile - 1) / shape.queryTile
    let keysPerSplit = split.keysPerSplit(span, tilesPerHead: tiles, keyBlock: shape.keyBlock)
    return segment(span, blocksPerSplit: keysPerSplit / shape.keyBlock)
  }

  private func segment(_ span: RequestSpan, blocksPerSplit: Int) -> TileSchedule.Segment {
    let blocks = (span.keyCount + shape.keyBlock - 1) / shape.keyBlock
    let splits = max(1, (blocks + blocksPerSplit - 1) / blocksPerSplit)
    return TileSchedule.Segment(
      span: span, heads: 0..<numHeads, splits: splits,
      blocksPerSplit: max(1, min(blocksPerSplit, blocks)), splitsPerTurn: splits,
      tilesPerHead: (span.queryCount + shape.queryTile - 1) / shape.queryTile,
      blocksPerHead: blocks, firstBlock: 0, firstTask: 0, firstTile: 0, firstPartial: 0)
  }

  mutating func add(_ segment: TileSchedule.Segment) {
    let blocks = segment.blocksPerHead
    if blocks > blocksPerWave, segment.splits > 1 { return addInTurns(segment) }
    var head = segment.heads.lowerBound
    while head < segment.heads.upperBound {
      let room = blocks == 0 ? numHeads : (blocksPerWave - current.blockCount) / blocks
      if room < 1, !current.segments.isEmpty {
        close()
        continue
      }
      let heads = head..<min(segment.heads.upperBound, head + max(1, room))
      current.segments.append(
        segment.narrowed(to: heads, splitsPerTurn: segment.splits, behind: current))
      head = heads.upperBound
    }
  }

  /// Waves of one segment each: as many heads as have room for a key range and for
  /// their partial results, and where not even one head has room for all of these,
  /// some of its tiles after the others, at the cost of packing the keys again.
  private mutating func addInTurns(_ segment: TileSchedule.Segment) {
    close()
    let partials =
      Self.partialWaves * blocksPerWave * shape.packedBlockBytes
      / (Self.leastPartialsPerTile * shape.partialFloats * 4)
    let mostHeads = min(
      blocksPerWave / segment.blocksPerSplit, partials / segment.tilesPerHead)
    let headCount = max(1, min(segment.heads.count, mostHeads))
    // Ranges side by side are tasks where tiles alone are too few, and partial results.
    let wanted = SplitRule.nominalTasks / (headCount * segment.tilesPerHead)
    let splits = max(1, min(wanted, blocksPerWave / (headCount * segment.blocksPerSplit)))
    let tiles = max(
      Self.fewestTiles, Self.leastPartialsPerTile * partials / (headCount * (splits + 1)))
    for part in parts(of: segment, tiles: tiles) {
      var rest = segment.heads
      while !rest.isEmpty {
        current.segments = [
          part.narrowed(to: rest.prefix(headCount), splitsPerTurn: min(splits, part.splits))
        ]
        close()
        rest = rest.dropFirst(headCount)
      }
    }
  }

  /// The sum of the turns before and one range's result.
  private static let leastPartialsPerTile = 2
  /// Partial results are worth more memory than packed keys: those of a prompt that
  /// is worked on at once need its keys packed once.
  private static let partialWaves = 4
  /// Attending to a key is little beside packing it if fewer see it.
  private static let fewestTiles = 16

  /// The last tiles first. Tiles and key ranges are those of the whole request.
  private func parts(of segment: TileSchedule.Segment, tiles: Int) -> [TileSchedule.Segment] {
    let span = segment.span
    let starts = stride(from: 0, to: span.queryCount, by: tiles * shape.queryTile)
    return starts.reversed().map { begin in
      let end = min(begin + tiles * shape.queryTile, span.queryCount)
      let unseen = isCausal ? span.queryCount - end : 0
      return self.segment(
        RequestSpan(
          queryBegin: span.queryBegin + begin, queryCount: end - begin, keyBegin: span.keyBegin,
          keyCount: max(0, span.keyCount - unseen)),
        blocksPerSplit: segment.blocksPerSplit)
    }
  }

  private mutating func close() {
    if !current.segments.isEmpty { waves.append(current) }
    current = TileSchedule.Wave()
  }

  mutating func finish() -> [TileSchedule.Wave] {
    close()
    return waves
  }
}

extension TileSchedule.Segment {
  /// Some of the heads, to be worked on after what a wave already holds.
  func narrowed(
    to heads: Range<Int>, splitsPerTurn: Int, behind wave: TileSchedule.Wave = .init()
  ) -> TileSchedule.Segment {
    TileSchedule.Segment(
      span: span, heads: heads, splits: splits, blocksPerSplit: blocksPerSplit,
      splitsPerTurn: splitsPerTurn, tilesPerHead: tilesPerHead,
      blocksPerHead: blocksPerHead, firstBlock: wave.blockCount, firstTask: wave.taskCount,
      firstTile: wave.tileCount, firstPartial: wave.partialCount)
  }
}
