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

/// How the attention of a batch is cut into tasks: a pure value, the same for
/// any number of threads, and for a request the same in any batch.
///
/// The pairs of (request, head) are taken longest request first and gathered
/// into waves whose packed keys fit into a bounded memory. A wave runs in up to
/// three phases, each a parallel loop over independent tasks:
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
    /// Keys of a range, a multiple of the key block.
    public let keysPerSplit: Int
    public let tilesPerHead: Int
    public let blocksPerHead: Int
    /// Numbers of this segment's first block, task, tile and partial result in
    /// its wave.
    public let firstBlock: Int
    public let firstTask: Int
    public let firstTile: Int
    public let firstPartial: Int

    var tasksPerHead: Int { tilesPerHead * splits }
    var endBlock: Int { firstBlock + heads.count * blocksPerHead }
    var endTask: Int { firstTask + heads.count * tasksPerHead }
    var endTile: Int { firstTile + heads.count * tilesPerHead }
    var endPartial: Int { firstPartial + (splits > 1 ? heads.count * tasksPerHead : 0) }
  }

  public struct Wave: Equatable, Sendable {
    public internal(set) var segments: [Segment] = []
    public var blockCount: Int { segments.last?.endBlock ?? 0 }
    public var taskCount: Int { segments.last?.endTask ?? 0 }
    public var tileCount: Int { segments.last?.endTile ?? 0 }
    public var partialCount: Int { segments.last?.endPartial ?? 0 }
  }

  public let waves: [Wave]
  public let shape: TileShape
  /// A request's last query sees all of its keys, the one before all but the
  /// last, and so on.
  public let isCausal: Bool

  /// Bytes for the packed keys of the largest wave.
  public var packedBytes: Int { (waves.map(\.blockCount).max() ?? 0) * shape.packedBlockBytes }

  /// Bytes for the partial results of the wave that has most of them.
  public var partialBytes: Int {
    (waves.map(\.partialCount).max() ?? 0) * shape.partialFloats * 4
  }

  /// - Parameter waveBytes: packed keys that a wave should not exceed; a single
  ///   pair that does has a wave of its own.
  public init(
    _ spans: [RequestSpan], numHeads: Int, isCausal: Bool, shape: TileShape, split: SplitRule,
    waveBytes: Int = TileSchedule.smallestWaveBytes
  ) {
    self.shape = shape
    self.isCausal = isCausal
    var builder = WaveBuilder(
      blocksPerWave: max(1, waveBytes / shape.packedBlockBytes), shape: shape)
    for span in Self.longestFirst(spans, isCausal: isCausal) {
      builder.add(span, numHeads: numHeads, split: split)
    }
    waves = builder.finish()
  }

  /// Packed keys of a wave that gives each thread dozens of tiles of a long
  /// request, so that they finish evenly, yet stays near the caches. Waves bear
  /// on memory and time only, never on bits.
  public static func waveBytes(threads: Int) -> Int { max(smallestWaveBytes, threads * (2 << 20)) }

  public static let smallestWaveBytes = 16 << 20

  /// Requests without queries have no work; equal ones keep their order.
  private static func longestFirst(_ spans: [RequestSpan], isCausal: Bool) -> [RequestSpan] {
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
private struct WaveBuilder {
  let blocksPerWave: Int
  let shape: TileShape
  private var waves: [TileSchedule.Wave] = []
  private var current = TileSchedule.Wave()

  init(blocksPerWave: Int, shape: TileShape) {
    self.blocksPerWave = blocksPerWave
    self.shape = shape
  }

  mutating func add(_ span: RequestSpan, numHeads: Int, split: SplitRule) {
    let blocks = (span.keyCount + shape.keyBlock - 1) / shape.keyBlock
    let tiles = (span.queryCount + shape.queryTile - 1) / shape.queryTile
    let keysPerSplit = split.keysPerSplit(span, tilesPerHead: tiles, keyBlock: shape.keyBlock)
    let splits = max(1, (span.keyCount + keysPerSplit - 1) / keysPerSplit)
    var head = 0
    while head < numHeads {
      let room = blocks == 0 ? numHeads : (blocksPerWave - current.blockCount) / blocks
      if room < 1, !current.segments.isEmpty {
        close()
        continue
      }
      let heads = head..<min(numHeads, head + max(1, room))
      current.segments.append(
        TileSchedule.Segment(
          span: span, heads: heads, splits: splits, keysPerSplit: keysPerSplit,
          tilesPerHead: tiles, blocksPerHead: blocks, firstBlock: current.blockCount,
          firstTask: current.taskCount, firstTile: current.tileCount,
          firstPartial: current.partialCount))
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
