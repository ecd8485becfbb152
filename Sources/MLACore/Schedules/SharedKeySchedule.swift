import MLAKernelABI

/// What a schedule of heads that share keys must know of them and of its kernel.
struct SharedKeyShape: Equatable, Sendable {
  /// Of queries, neighbours that share a head of keys.
  let numHeads: Int
  /// Of keys, each with as many heads of queries.
  var numKeyHeads = 1
  let vHeadDim: Int
  /// What a wave keeps of the queries of a token, `numHeads` of them.
  let queryBytes: Int
  /// Keys that a worker packs at once, a multiple of the kernel's block.
  let keysPerPack: Int
  /// Whether each token has keys of its own, so that a tile is one token.
  var hasOwnKeys = false

  /// Longer packs would leave too few ranges for many threads.
  static let mostKeysPerPack = 512

  /// Of a row of partial results: one token and head.
  var partialFloats: Int { partialRowFloats(vHeadDim) }
}

extension mla_attention_kernel {
  /// Keys that a worker packs at once: they are read again by each kernel call of a tile,
  /// whose results grow with every pack, so as many as are near a core.
  func keysPerPack(_ dims: mla_kernel_dims) -> Int {
    let blocks = min(
      l2Bytes / Int(packed_block_bytes(dims)), SharedKeyShape.mostKeysPerPack / Int(key_block))
    return Int(key_block) * max(1, blocks)
  }
}

private let l2Bytes = 1 << 20

/// How requests are cut that have few queries for their keys: the heads that share these are
/// worked on together, rows of queries are pairs of token and head. In latent space, where
/// all heads share one key; and where several heads of queries share one of keys. A pure
/// value, for a request the same in any batch and for any number of threads.
///
/// The words are those of `TileSchedule`: a request's new tokens are cut into tiles, here
/// of all heads that share keys, the keys of each tile into ranges. Tiles are gathered into
/// waves whose queries and partial results fit into a bounded memory, each when its time
/// comes: a schedule holds requests, however many tokens these have. A wave's phases:
///
///     absorb   in latent space: queries of a group of tiles and a head, projected to the
///              latents
///     attend   one tile to one range of its keys, which the task packs itself
///     finish   a group of tiles and a head: the ranges' results combined, in latent space
///              projected to values, written
struct SharedKeySchedule: Sendable {
  struct Tile: Equatable, Sendable {
    /// Some tokens of a request, and the keys that they see.
    let span: RequestSpan
    let keyHead: Int
    /// A multiple of `keysPerPack`.
    let keysPerRange: Int
    /// At least 1.
    let ranges: Int
    /// Where it begins in its wave.
    var place = Place()

    /// Rows of q.
    var tokens: Range<Int> { span.queryBegin..<span.queryBegin + span.queryCount }
    /// Keys that all of the tokens see: those that the first one sees. Further tokens may
    /// see a few more, which the last range's task takes care of.
    var sharedKeys: Int { span.keysSeen(by: 0) }
  }

  /// A place in a wave, by what is counted through it.
  struct Place: Equatable, Sendable {
    var token = 0
    /// Tasks of attending.
    var task = 0
    /// Rows of partial results, one for each token, head and range.
    var partial = 0
  }

  /// A tile and a range of its shared keys, counted from the request's first.
  struct Task: Equatable {
    let tile: Tile
    let range: Int
    let keys: Range<Int>
    /// Whether the keys that only some of the tokens see are this task's as well.
    let isLast: Bool
  }

  /// Longest first.
  let spans: FixedArray<RequestSpan>
  let shape: SharedKeyShape
  /// What no wave's queries and partial results exceed.
  let waveBytes: Int
  /// No wave has more.
  let mostTasks: Int
  let mostTiles: Int

  /// Most tokens that a group has, and so a tile.
  static let groupTokens = 64

  /// - Parameter waveBytes: queries and partial results that a wave should not
  ///   exceed; a single tile may.
  init(_ spans: some Collection<RequestSpan>, shape: SharedKeyShape, waveBytes: Int)
    throws(MLAError)
  {
    self.shape = shape
    var longestFirst = try FixedArray<RequestSpan>(
      capacity: spans.count, for: "a schedule's requests")
    for span in spans { longestFirst.append(span) }
    longestFirst.sort { ($0.keyCount, $1.queryBegin) > ($1.keyCount, $0.queryBegin) }
    self.spans = longestFirst
    var (largest, total, tiles, tasks, tokens) = (0, 0, 0, 0, 0)
    for span in longestFirst {
      let size = Size(span, shape)
      largest = max(largest, size.largestTile)
      total = saturatingSum(total, saturatingProduct(size.bytes, shape.numKeyHeads))
      tiles += size.tiles * shape.numKeyHeads
      tasks += size.tiles * shape.numKeyHeads * size.mostRanges
      tokens += span.queryCount * shape.numKeyHeads
    }
    self.waveBytes = min(total, max(waveBytes, largest))
    // Two groups that follow each other have more than `groupTokens` together.
    let groups = 2 * tokens / Self.groupTokens + 1
    mostTasks = max(tasks, groups * shape.numHeads)
    mostTiles = min(tiles, Self.mostTilesPerWave)
  }

  /// Far more than keep any number of threads busy.
  private static let mostTilesPerWave = 4096

  /// What a request's tiles may have and take.
  private struct Size {
    let tiles: Int
    let mostRanges: Int
    let largestTile: Int
    let bytes: Int

    init(_ span: RequestSpan, _ shape: SharedKeyShape) {
      tiles = SharedKeySchedule.tileCount(span, shape)
      if tiles <= Self.mostToLookAt {
        var (ranges, largest, sum) = (0, 0, 0)
        for index in 0..<tiles {
          let tile = SharedKeySchedule.tile(index, of: tiles, span, keyHead: 0, shape)
          let bytes = tile.bytes(shape)
          (ranges, largest, sum) = (max(ranges, tile.ranges), max(largest, bytes), sum + bytes)
        }
        (mostRanges, largestTile, bytes) = (ranges, largest, sum)
      } else {
        // One more than are wanted for what division leaves: a range has no fewer keys
        // than there are ranges.
        mostRanges = SharedKeySchedule.wantedRanges(tiles * shape.numKeyHeads) + 1
        let tokens = (span.queryCount + tiles - 1) / tiles
        largestTile = shape.bytes(tokens: tokens, ranges: mostRanges)
        bytes = saturatingProduct(largestTile, tiles)
      }
    }

    /// Of more, only what they have at most is found out.
    private static let mostToLookAt = 64
  }
}

extension SharedKeySchedule {
  static func tileCount(_ span: RequestSpan, _ shape: SharedKeyShape) -> Int {
    let mostTokens = shape.hasOwnKeys ? 1 : mostTokensPerTile(numHeads: shape.numHeads)
    return (span.queryCount + mostTokens - 1) / mostTokens
  }

  /// Tiles of equal size; ranges long enough that partial results take less
  /// memory than the latents that they are made of.
  static func tile(
    _ index: Int, of count: Int, _ span: RequestSpan, keyHead: Int, _ shape: SharedKeyShape
  ) -> Tile {
    let first = span.queryCount * index / count
    let part = span.part(first..<span.queryCount * (index + 1) / count)
    let sharedKeys = part.keysSeen(by: 0)
    let shortest = max(
      keysPerRow * part.queryCount * shape.numHeads,
      sharedKeys / wantedRanges(count * shape.numKeyHeads))
    let packs = max(1, (shortest + shape.keysPerPack - 1) / shape.keysPerPack)
    let keysPerRange = packs * shape.keysPerPack
    return Tile(
      span: part, keyHead: keyHead, keysPerRange: keysPerRange,
      ranges: max(1, (sharedKeys + keysPerRange - 1) / keysPerRange))
  }

  private static func wantedRanges(_ tiles: Int) -> Int {
    (SplitRule.nominalTasks + tiles - 1) / tiles
  }

  static func mostTokensPerTile(numHeads: Int) -> Int {
    max(1, min(groupTokens, rowsPerTile / numHeads))
  }

  /// Enough that packing a key, which each tile does anew, is little beside
  /// attending to it; few enough that their results stay near the core.
  private static let rowsPerTile = 256
  private static let keysPerRow = 4
}

extension SharedKeySchedule.Tile {
  /// Queries and partial results.
  func bytes(_ shape: SharedKeyShape) -> Int { shape.bytes(tokens: tokens.count, ranges: ranges) }
}

extension SharedKeyShape {
  fileprivate func bytes(tokens: Int, ranges: Int) -> Int {
    tokens * (queryBytes + ranges * numHeads * partialFloats * 4)
  }
}
