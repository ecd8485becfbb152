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
    /// Most heads that are packed for at a time.
    public let headsPerPack: Int
    /// Where this segment's begin in its wave.
    public let first: Numbers

    var turns: Int { (splits + splitsPerTurn - 1) / splitsPerTurn }
    var blocksPerTurn: Int { min(splitsPerTurn * blocksPerSplit, blocksPerHead) }
    var blockCount: Int { heads.count * blocksPerTurn }
    var tileCount: Int { heads.count * tilesPerHead }
    /// The sum of the turns before, and one for each range of the turn; the first
    /// turn's first range is the beginning of the sum.
    var partialsPerTile: Int { splits > 1 ? min(splits, splitsPerTurn + 1) : 0 }
    var partialCount: Int { tileCount * partialsPerTile }

    /// Where those of the next segment begin.
    var end: Numbers {
      Numbers(
        block: first.block + blockCount, pack: first.pack + packCount(inTurn: 0),
        task: first.task + taskCount(inTurn: 0), tile: first.tile + tileCount,
        partial: first.partial + partialCount)
    }

    func splits(inTurn turn: Int) -> Range<Int> {
      turn * splitsPerTurn..<min((turn + 1) * splitsPerTurn, splits)
    }

    func blocks(inTurn turn: Int) -> Range<Int> {
      let first = turn * splitsPerTurn * blocksPerSplit
      return first..<min(first + blocksPerTurn, blocksPerHead)
    }

    func taskCount(inTurn turn: Int) -> Int { tileCount * splits(inTurn: turn).count }

    func packCount(inTurn turn: Int) -> Int {
      (heads.count + headsPerPack - 1) / headsPerPack * blocks(inTurn: turn).count
    }
  }

  /// What is counted through a wave.
  public struct Numbers: Equatable, Sendable {
    /// Packed blocks.
    public var block = 0
    public var pack = 0
    public var task = 0
    public var tile = 0
    /// Partial results.
    public var partial = 0
  }

  /// What one thread each works on, before the waves.
  public let units: Units
  /// Units that a thread takes at a time.
  let unitGroups: UnitGroups
  public let waves: Waves
  public let shape: TileShape
  /// A request's last query sees all of its keys, the one before all but the
  /// last, and so on.
  public let isCausal: Bool
  /// How many share the work.
  let threads: Int

  /// Bytes for the packed keys of the largest wave.
  var bytesPerWave: Int { waves.most.block * shape.packedBlockBytes }
  /// Bytes for the partial results of the wave that has most of them.
  var partialBytesPerWave: Int { waves.most.partial * shape.partialFloats * 4 }
  /// Likewise, of the largest unit.
  var bytesPerUnit: Int { units.most.block * shape.packedBlockBytes }
  var partialBytesPerUnit: Int { units.most.partial * shape.partialFloats * 4 }

  /// - Parameters:
  ///   - threads: how many will share the work, at most.
  ///   - headsPerUnit: most heads of a unit, for keys that are dear to fetch and
  ///     serve several heads.
  ///   - waveBytes: packed keys that a wave, or the units in work at a time,
  ///     should not exceed; a single pair's key range that does has a wave of its own.
  public convenience init(
    _ spans: some RandomAccessCollection<RequestSpan>, numHeads: Int, isCausal: Bool,
    shape: TileShape, split: SplitRule, threads: Int, headsPerUnit: Int = 1,
    waveBytes: Int = TileSchedule.smallestWaveBytes
  ) throws(MLAError) {
    try self.init(
      TileRequests(
        spans, numHeads: numHeads, isCausal: isCausal, shape: shape, split: split,
        headsPerPack: headsPerUnit), threads: threads, waveBytes: waveBytes)
  }

  init(_ requests: TileRequests, threads: Int, waveBytes: Int) throws(MLAError) {
    shape = requests.shape
    isCausal = requests.isCausal
    self.threads = threads
    let blocksPerWave = max(1, waveBytes / shape.packedBlockBytes)
    let choice = try UnitChoice(
      requests, threads: threads,
      bytesPerUnit: blocksPerWave * shape.packedBlockBytes / max(1, threads))
    units = choice.units
    unitGroups = choice.groups
    waves = try WaveBuilder.waves(requests, blocksPerWave: blocksPerWave, of: choice.forEachRest)
  }

  /// Packed keys of a wave that gives each thread dozens of tiles of a long
  /// request, so that they finish evenly, yet stays near the caches. Waves bear
  /// on memory and time only, never on bits.
  public static func waveBytes(threads: Int) -> Int { max(smallestWaveBytes, threads * (2 << 20)) }

  public static let smallestWaveBytes = 16 << 20
}

extension TileSchedule.Segment {
  init(
    _ span: RequestSpan, heads: Range<Int>, blocksPerSplit: Int, headsPerPack: Int,
    _ shape: TileShape
  ) {
    let blocks = (span.keyCount + shape.keyBlock - 1) / shape.keyBlock
    let splits = max(1, (blocks + blocksPerSplit - 1) / blocksPerSplit)
    self.init(
      span: span, heads: heads, splits: splits,
      blocksPerSplit: max(1, min(blocksPerSplit, blocks)), splitsPerTurn: splits,
      tilesPerHead: (span.queryCount + shape.queryTile - 1) / shape.queryTile,
      blocksPerHead: blocks, headsPerPack: headsPerPack, first: .init())
  }

  /// Some of the heads.
  ///
  /// - Parameter first: what a wave holds already.
  func narrowed(
    to heads: Range<Int>, splitsPerTurn: Int, behind first: TileSchedule.Numbers = .init()
  ) -> TileSchedule.Segment {
    TileSchedule.Segment(
      span: span, heads: heads, splits: splits, blocksPerSplit: blocksPerSplit,
      splitsPerTurn: splitsPerTurn, tilesPerHead: tilesPerHead,
      blocksPerHead: blocksPerHead, headsPerPack: headsPerPack, first: first)
  }
}
