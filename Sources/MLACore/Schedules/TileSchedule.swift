/// One request's part of a call: its rows of q and its rows of k and v.
public struct RequestSpan: Equatable, Sendable {
  public let queryBegin: Int
  public let queryCount: Int
  public let keyBegin: Int
  public let keyCount: Int

  public init(queryBegin: Int, queryCount: Int, keyBegin: Int, keyCount: Int) {
    self.queryBegin = queryBegin
    self.queryCount = queryCount
    self.keyBegin = keyBegin
    self.keyCount = keyCount
  }
}

/// What a schedule must know of the kernel it is for.
public struct TileShape: Equatable, Sendable {
  public let queryTile: Int
  public let keyBlock: Int
  public let packedBlockBytes: Int
  public let vHeadDim: Int

  public init(queryTile: Int, keyBlock: Int, packedBlockBytes: Int, vHeadDim: Int) {
    self.queryTile = queryTile
    self.keyBlock = keyBlock
    self.packedBlockBytes = packedBlockBytes
    self.vHeadDim = vHeadDim
  }

  /// fp32 out and lse of a tile over a part of its keys.
  var partialFloats: Int { queryTile * (vHeadDim + 1) }
}

/// How the attention of a batch is cut into tasks: a pure value. The tasks of a
/// request are the same for any number of threads and in any batch; who works on
/// which of them, and when, is not.
///
/// The pairs of (request, head) are taken longest request first. As many as keep
/// all threads busy to the end become units: a thread works on a unit alone, so
/// that what it packs is still in its own cache when it attends to it. The rest
/// is gathered into waves whose packed keys fit into a bounded memory. All
/// threads work on a wave, in up to three phases, each a parallel loop over
/// independent tasks:
///
///     pack     one block of keys and values of a pair, or of neighbouring ones
///     attend   one tile of queries against all the keys it sees, or, where the
///              request is split, against one of its key ranges
///     combine  one tile's partial results, in the order of their key ranges
///
/// Within a wave pairs follow each other and a pair's longest tiles come first:
/// threads that take tasks in order share packed keys while they are in cache,
/// and what remains at the end is short.
public struct TileSchedule: Sendable {
  /// Some consecutive heads of one request.
  public struct Segment: Equatable, Sendable {
    public let span: RequestSpan
    public let heads: Range<Int>
    /// Key ranges that a tile's work is split into, 1 if it is not.
    public let splits: Int
    public let blocksPerSplit: Int
    public let tilesPerHead: Int
    public let blocksPerHead: Int
    /// Numbers of this segment's first block, task, tile and partial result in
    /// its wave.
    public let firstBlock: Int
    public let firstTask: Int
    public let firstTile: Int
    public let firstPartial: Int

    var tasksPerHead: Int { tilesPerHead * splits }
    var tileCount: Int { heads.count * tilesPerHead }
    var partialCount: Int { splits > 1 ? heads.count * tasksPerHead : 0 }
    var endBlock: Int { firstBlock + heads.count * blocksPerHead }
    var endTask: Int { firstTask + heads.count * tasksPerHead }
    var endTile: Int { firstTile + tileCount }
    var endPartial: Int { firstPartial + partialCount }

    /// As a unit, whose key ranges take turns in the same memory.
    var unitBlockCount: Int { heads.count * min(blocksPerSplit, blocksPerHead) }
  }

  public struct Wave: Equatable, Sendable {
    public internal(set) var segments: [Segment] = []
    public var blockCount: Int { segments.last?.endBlock ?? 0 }
    public var taskCount: Int { segments.last?.endTask ?? 0 }
    public var tileCount: Int { segments.last?.endTile ?? 0 }
    public var partialCount: Int { segments.last?.endPartial ?? 0 }
  }

  /// What one thread each works on, before the waves.
  public let units: [Segment]
  public let waves: [Wave]
  public let shape: TileShape
  /// A request's last query sees all of its keys, the one before all but the
  /// last, and so on.
  public let isCausal: Bool

  /// Bytes for the packed keys of the largest wave.
  var bytesPerWave: Int { (waves.map(\.blockCount).max() ?? 0) * shape.packedBlockBytes }
  /// Bytes for the partial results of the wave that has most of them.
  var partialBytesPerWave: Int {
    (waves.map(\.partialCount).max() ?? 0) * shape.partialFloats * 4
  }
  /// Likewise, of the largest unit.
  var bytesPerUnit: Int { (units.map(\.unitBlockCount).max() ?? 0) * shape.packedBlockBytes }
  var partialBytesPerUnit: Int {
    (units.map(\.partialCount).max() ?? 0) * shape.partialFloats * 4
  }

  /// - Parameters:
  ///   - threads: how many will share the work.
  ///   - headsPerUnit: most heads of a unit, for keys that are dear to fetch and
  ///     serve several heads.
  ///   - waveBytes: packed keys that a wave, or the units in work at a time,
  ///     should not exceed; a single pair that does has a wave of its own.
  public init(
    _ spans: [RequestSpan], numHeads: Int, isCausal: Bool, shape: TileShape, split: SplitRule,
    threads: Int, headsPerUnit: Int = 1, waveBytes: Int = TileSchedule.smallestWaveBytes
  ) {
    self.shape = shape
    self.isCausal = isCausal
    var builder = ScheduleBuilder(
      shape: shape, split: split, numHeads: numHeads,
      blocksPerWave: max(1, waveBytes / shape.packedBlockBytes))
    let requests = Self.longestFirst(spans).map(builder.whole)
    let choice = UnitChoice(
      requests, isCausal: isCausal, threads: threads, headsPerUnit: headsPerUnit,
      blocksPerUnit: builder.blocksPerWave / max(1, threads))
    units = choice.units
    for rest in choice.rest { builder.add(rest) }
    waves = builder.finish()
  }

  /// Packed keys of a wave that gives each thread dozens of tiles of a long
  /// request, so that they finish evenly, yet stays near the caches. Waves bear
  /// on memory and time only, never on bits.
  public static func waveBytes(threads: Int) -> Int { max(smallestWaveBytes, threads * (2 << 20)) }

  public static let smallestWaveBytes = 16 << 20

  /// Requests without queries have no work; equal ones keep their order.
  private static func longestFirst(_ spans: [RequestSpan]) -> [RequestSpan] {
    spans.filter { $0.queryCount > 0 }
      .enumerated()
      .sorted { a, b in
        let (x, y) = (a.element, b.element)
        let (workX, workY) = (x.queryCount * x.keyCount, y.queryCount * y.keyCount)
        return workX != workY ? workX > workY : a.offset < b.offset
      }
      .map(\.element)
  }
}

/// Gathers pairs into waves, splitting a request's heads where a wave is full.
private struct ScheduleBuilder {
  let shape: TileShape
  let split: SplitRule
  let numHeads: Int
  let blocksPerWave: Int
  private var waves: [TileSchedule.Wave] = []
  private var current = TileSchedule.Wave()

  init(shape: TileShape, split: SplitRule, numHeads: Int, blocksPerWave: Int) {
    self.shape = shape
    self.split = split
    self.numHeads = numHeads
    self.blocksPerWave = blocksPerWave
  }

  /// All heads of a request.
  func whole(_ span: RequestSpan) -> TileSchedule.Segment {
    let tiles = (span.queryCount + shape.queryTile - 1) / shape.queryTile
    let blocks = (span.keyCount + shape.keyBlock - 1) / shape.keyBlock
    let keysPerSplit = split.keysPerSplit(span, tilesPerHead: tiles, keyBlock: shape.keyBlock)
    return TileSchedule.Segment(
      span: span, heads: 0..<numHeads,
      splits: max(1, (span.keyCount + keysPerSplit - 1) / keysPerSplit),
      blocksPerSplit: max(1, min(keysPerSplit / shape.keyBlock, blocks)), tilesPerHead: tiles,
      blocksPerHead: blocks, firstBlock: 0, firstTask: 0, firstTile: 0, firstPartial: 0)
  }

  mutating func add(_ segment: TileSchedule.Segment) {
    let blocks = segment.blocksPerHead
    var head = segment.heads.lowerBound
    while head < segment.heads.upperBound {
      let room = blocks == 0 ? numHeads : (blocksPerWave - current.blockCount) / blocks
      if room < 1, !current.segments.isEmpty {
        close()
        continue
      }
      let heads = head..<min(segment.heads.upperBound, head + max(1, room))
      current.segments.append(segment.narrowed(to: heads, behind: current))
      head = heads.upperBound
    }
  }

  mutating func close() {
    waves.append(current)
    current = TileSchedule.Wave()
  }

  mutating func finish() -> [TileSchedule.Wave] {
    if !current.segments.isEmpty { close() }
    return waves
  }
}

extension TileSchedule.Segment {
  /// Some of the heads, to be worked on after what a wave already holds.
  func narrowed(to heads: Range<Int>, behind wave: TileSchedule.Wave = .init())
    -> TileSchedule.Segment
  {
    TileSchedule.Segment(
      span: span, heads: heads, splits: splits, blocksPerSplit: blocksPerSplit,
      tilesPerHead: tilesPerHead, blocksPerHead: blocksPerHead, firstBlock: wave.blockCount,
      firstTask: wave.taskCount, firstTile: wave.tileCount, firstPartial: wave.partialCount)
  }
}
