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

/// How the attention of a batch is cut into tasks: it never changes, so that runs
/// share it. The tasks of a request are the same for any number of threads and in any
/// batch; who works on which of them, and when, is not.
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
/// Some heads of a very long request of which not even one fits into that memory
/// are a wave of their own: a few of the key ranges at a time take turns in the
/// memory, three phases each. A unit's ranges do so one by one.
///
/// Within a wave pairs follow each other and a pair's longest tiles come first:
/// threads that take tasks in order share packed keys while they are in cache,
/// and what remains at the end is short.
public final class TileSchedule: Sendable {
  /// Some consecutive heads of one request.
  public struct Segment: Equatable, Sendable {
    public let span: RequestSpan
    public let heads: Range<Int>
    /// Key ranges that a tile's work is split into, 1 if it is not.
    public let splits: Int
    public let blocksPerSplit: Int
    /// Ranges that are in memory at a time.
    public let splitsPerTurn: Int
    public let tilesPerHead: Int
    public let blocksPerHead: Int
    /// Numbers of this segment's first block, task, tile and partial result in
    /// its wave.
    public let firstBlock: Int
    public let firstTask: Int
    public let firstTile: Int
    public let firstPartial: Int

    var turns: Int { (splits + splitsPerTurn - 1) / splitsPerTurn }
    var blocksPerTurn: Int { min(splitsPerTurn * blocksPerSplit, blocksPerHead) }
    var blockCount: Int { heads.count * blocksPerTurn }
    var tileCount: Int { heads.count * tilesPerHead }
    /// The sum of the turns before, and one for each range of the turn; the first
    /// turn's first range is the beginning of the sum.
    var partialsPerTile: Int { splits > 1 ? min(splits, splitsPerTurn + 1) : 0 }
    var partialCount: Int { tileCount * partialsPerTile }
    var endBlock: Int { firstBlock + blockCount }
    var endTask: Int { firstTask + taskCount(inTurn: 0) }
    var endTile: Int { firstTile + tileCount }
    var endPartial: Int { firstPartial + partialCount }

    func splits(inTurn turn: Int) -> Range<Int> {
      turn * splitsPerTurn..<min((turn + 1) * splitsPerTurn, splits)
    }

    func blocks(inTurn turn: Int) -> Range<Int> {
      let first = turn * splitsPerTurn * blocksPerSplit
      return first..<min(first + blocksPerTurn, blocksPerHead)
    }

    func taskCount(inTurn turn: Int) -> Int { tileCount * splits(inTurn: turn).count }
  }

  public struct Wave: Equatable, Sendable {
    public internal(set) var segments: [Segment] = []
    /// More than 1 in a wave of a single segment only.
    public var turns: Int { segments.last?.turns ?? 0 }
    public var blockCount: Int { segments.last?.endBlock ?? 0 }
    /// Of the first turn; none has more.
    public var taskCount: Int { segments.last?.endTask ?? 0 }
    func taskCount(inTurn turn: Int) -> Int {
      turn == 0 ? taskCount : segments.last?.taskCount(inTurn: turn) ?? 0
    }
    public var tileCount: Int { segments.last?.endTile ?? 0 }
    public var partialCount: Int { segments.last?.endPartial ?? 0 }
  }

  /// What one thread each works on, before the waves.
  public let units: Units
  /// Units that a thread takes at a time.
  let unitGroups: [Range<Int>]
  public let waves: [Wave]
  public let shape: TileShape
  /// A request's last query sees all of its keys, the one before all but the
  /// last, and so on.
  public let isCausal: Bool
  /// How many share the work.
  let threads: Int

  /// Bytes for the packed keys of the largest wave.
  var bytesPerWave: Int { (waves.map(\.blockCount).max() ?? 0) * shape.packedBlockBytes }
  /// Bytes for the partial results of the wave that has most of them.
  var partialBytesPerWave: Int {
    (waves.map(\.partialCount).max() ?? 0) * shape.partialFloats * 4
  }
  /// Likewise, of the largest unit.
  var bytesPerUnit: Int { (units.map(\.blockCount).max() ?? 0) * shape.packedBlockBytes }
  var partialBytesPerUnit: Int {
    (units.map(\.partialCount).max() ?? 0) * shape.partialFloats * 4
  }

  /// - Parameters:
  ///   - threads: how many will share the work, at most.
  ///   - headsPerUnit: most heads of a unit, for keys that are dear to fetch and
  ///     serve several heads.
  ///   - waveBytes: packed keys that a wave, or the units in work at a time,
  ///     should not exceed; a single pair's key range that does has a wave of its own.
  public init(
    _ spans: [RequestSpan], numHeads: Int, isCausal: Bool, shape: TileShape, split: SplitRule,
    threads: Int, headsPerUnit: Int = 1, waveBytes: Int = TileSchedule.smallestWaveBytes
  ) {
    self.shape = shape
    self.isCausal = isCausal
    self.threads = threads
    var builder = ScheduleBuilder(
      shape: shape, split: split, numHeads: numHeads, isCausal: isCausal,
      blocksPerWave: max(1, waveBytes / shape.packedBlockBytes))
    let requests = Self.longestFirst(spans).map(builder.whole)
    let choice = UnitChoice(
      requests, isCausal: isCausal, shape: shape, threads: threads, headsPerUnit: headsPerUnit,
      bytesPerUnit: builder.blocksPerWave * shape.packedBlockBytes / max(1, threads))
    units = choice.units
    unitGroups = choice.groups
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
