import MLAKernelABI

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

  /// Of a tile's partial result.
  var partialFloats: Int { queryTile * partialRowFloats(vHeadDim) }
}

extension mla_attention_kernel {
  func shape(_ dims: mla_kernel_dims) -> TileShape {
    TileShape(
      queryTile: Int(query_tile), keyBlock: Int(key_block),
      packedBlockBytes: Int(packed_block_bytes(dims)), vHeadDim: Int(dims.v_head_dim))
  }
}

/// How the attention of a batch is cut into tasks: it never changes, so that runs
/// share it. The tasks of a request are the same for any number of threads and in any
/// batch; who works on which of them, and when, is not.
///
///     a head of a request      range 0   range 1   range 2     its keys, cut where
///                              b  b  b   b  b  b   b  b        the request is split
///                     tile 0   x  x
///     its queries     tile 1   x  x  x   x  x                  x: keys that a causal
///                     tile 2   x  x  x   x  x  x   x  x        tile sees
///
///     tile      queries that a kernel takes at once
///     block     b: keys that a kernel packs at once, with their values
///     range     blocks that are attended to at once. A tile that sees several has a
///               partial result of each; they are combined in their order
///     segment   some neighbouring heads of a request, and some or all of its tiles
///     head      of keys, with the tiles of all heads of queries that look at it
///     wave      segments whose packed blocks are in memory together. Worked on in up to
///               three phases of independent tasks:
///
///                   pack     one block of a head, or of neighbouring ones
///                   attend   one tile to one range
///                   combine  one tile's partial results
///
///     turn      ranges of a wave that are in memory at a time, where it has no room for
///               all: the three phases for each turn
///     unit      a wave that one worker carries out, from one range to the next; waves
///               proper are carried out by all workers, phase by phase
///     group     neighbouring units that a worker takes together
///
/// The pairs of (request, head) are taken longest request first. As many as keep
/// all threads busy to the end become units: what a thread packs is still in its own
/// cache when it attends to it. The rest is gathered into waves whose packed keys fit
/// into a bounded memory. Some heads of a very long request of which not even one fits
/// are a wave of their own, in turns.
///
/// Within a wave heads follow each other, a head's ranges do, and of a range the longest
/// tiles come first: threads that take tasks in order share packed keys while they are in
/// cache, and what remains at the end is short.
public final class TileSchedule: Sendable {
  /// Waves of one worker each, before the others.
  public let units: Waves
  /// Units that a worker takes at a time.
  let unitGroups: UnitGroups
  public let waves: Waves
  public let shape: TileShape
  /// Neighbouring heads of queries that share one of keys.
  let headsPerKeyHead: Int
  /// How many share the work.
  let threads: Int

  /// - Parameters:
  ///   - numHeads: of keys.
  ///   - threads: how many will share the work, at most.
  ///   - headsPerUnit: most heads of a unit, for keys that are dear to fetch and
  ///     serve several heads.
  ///   - waveBytes: packed keys that a wave, or the units in work at a time,
  ///     should not exceed; a single pair's key range that does has a wave of its own.
  public convenience init(
    _ spans: some RandomAccessCollection<RequestSpan>, numHeads: Int, headsPerKeyHead: Int = 1,
    shape: TileShape, split: SplitRule, threads: Int, headsPerUnit: Int = 1,
    waveBytes: Int = TileSchedule.smallestWaveBytes
  ) throws(MLAError) {
    try self.init(
      TileRequests(
        spans, numHeads: numHeads, headsPerKeyHead: headsPerKeyHead, shape: shape, split: split,
        headsPerPack: headsPerUnit), threads: threads, waveBytes: waveBytes)
  }

  init(_ requests: TileRequests, threads: Int, waveBytes: Int) throws(MLAError) {
    shape = requests.shape
    headsPerKeyHead = requests.headsPerKeyHead
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

extension TileShape {
  /// Of the packed blocks of some waves.
  func packedBytes(_ waves: TileSchedule.Waves) -> Int { waves.most.block * packedBlockBytes }
  /// Of their partial results.
  func partialBytes(_ waves: TileSchedule.Waves) -> Int { waves.most.partial * partialFloats * 4 }
}

/// Of a row of a partial result: outputs, and what they are relative to.
func partialRowFloats(_ vHeadDim: Int) -> Int { vHeadDim + MLA_PARTIAL_STATISTICS }
