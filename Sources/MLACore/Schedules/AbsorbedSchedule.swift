/// What a schedule in latent space must know of the layer and its kernel.
struct AbsorbedShape: Equatable, Sendable {
  let numHeads: Int
  /// Elements of a key: the latent and the rotary part.
  let keyDim: Int
  let kvLoraRank: Int
  /// Of the rows of queries.
  let elementBytes: Int
  /// Keys that a worker packs at once, a multiple of the kernel's block.
  let keysPerPack: Int

  /// Longer packs would leave too few ranges for many threads.
  static let mostKeysPerPack = 512

  /// Bytes of a token's queries, all heads.
  var queryBytes: Int { numHeads * keyDim * elementBytes }
  /// Of a row of partial results: one token and head.
  var partialFloats: Int { partialRowFloats(kvLoraRank) }
}

/// How requests are cut that are worked on in latent space, where all heads
/// share one key: rows of queries are pairs of token and head. A pure value, for
/// a request the same in any batch and for any number of threads.
///
/// The words are those of `TileSchedule`: a request's new tokens are cut into tiles, here
/// of all heads, the keys of each tile into ranges. Tiles are gathered into waves whose
/// queries and partial results fit into a bounded memory, each when its time comes: a
/// schedule holds requests, however many tokens these have. A wave's three phases:
///
///     absorb   queries of a group of tiles and a head, projected to the latents
///     attend   one tile to one range of its keys, which the task packs itself
///     finish   a group of tiles and a head: the ranges' results combined,
///              projected to values, written
struct AbsorbedSchedule: Sendable {
  struct Tile: Equatable, Sendable {
    /// Rows of q.
    let tokens: Range<Int>
    /// Number of the request's first key.
    let keyBegin: Int
    /// Keys that all of the tokens see: those that the first one sees. Each
    /// further token sees one more.
    let sharedKeys: Int
    /// A multiple of `keysPerPack`.
    let keysPerRange: Int
    let ranges: Int
    /// Where it begins in its wave.
    var place = Place()
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
  let shape: AbsorbedShape
  /// What no wave's queries and partial results exceed.
  let waveBytes: Int
  /// No wave has more.
  let mostTasks: Int
  let mostTiles: Int

  /// No tile has more: a range has at least half of the keys that make as many as are
  /// wanted.
  static let mostRanges = 2 * SplitRule.nominalTasks

  /// Most tokens that a group has, and so a tile.
  static let groupTokens = 64

  /// - Parameter waveBytes: queries and partial results that a wave should not
  ///   exceed; a single tile may.
  init(_ spans: some Collection<RequestSpan>, shape: AbsorbedShape, waveBytes: Int)
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
      total = saturatingSum(total, size.bytes)
      tiles += size.tiles
      tasks += size.tiles * size.mostRanges
      tokens += span.queryCount
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

    init(_ span: RequestSpan, _ shape: AbsorbedShape) {
      tiles = AbsorbedSchedule.tileCount(span, shape)
      if tiles <= Self.mostToLookAt {
        var (ranges, largest, sum) = (0, 0, 0)
        for index in 0..<tiles {
          let tile = AbsorbedSchedule.tile(index, of: tiles, span, shape)
          let bytes = tile.bytes(shape)
          (ranges, largest, sum) = (max(ranges, tile.ranges), max(largest, bytes), sum + bytes)
        }
        (mostRanges, largestTile, bytes) = (ranges, largest, sum)
      } else {
        // One more than are wanted for what division leaves: a range has no fewer keys
        // than there are ranges.
        mostRanges = AbsorbedSchedule.wantedRanges(tiles) + 1
        let tokens = (span.queryCount + tiles - 1) / tiles
        largestTile = shape.bytes(tokens: tokens, ranges: mostRanges)
        bytes = saturatingProduct(largestTile, tiles)
      }
    }

    /// Of more, only what they have at most is found out.
    private static let mostToLookAt = 64
  }
}

extension AbsorbedSchedule {
  static func tileCount(_ span: RequestSpan, _ shape: AbsorbedShape) -> Int {
    let mostTokens = mostTokensPerTile(numHeads: shape.numHeads)
    return (span.queryCount + mostTokens - 1) / mostTokens
  }

  /// Tiles of equal size; ranges long enough that partial results take less
  /// memory than the latents that they are made of.
  static func tile(_ index: Int, of count: Int, _ span: RequestSpan, _ shape: AbsorbedShape)
    -> Tile
  {
    let context = span.keyCount - span.queryCount
    let first = span.queryCount * index / count
    let tokens = first..<span.queryCount * (index + 1) / count
    let sharedKeys = context + first + 1
    let shortest = max(
      keysPerRow * tokens.count * shape.numHeads, sharedKeys / wantedRanges(count))
    let packs = max(1, (shortest + shape.keysPerPack - 1) / shape.keysPerPack)
    let keysPerRange = packs * shape.keysPerPack
    return Tile(
      tokens: span.queryBegin + tokens.lowerBound..<span.queryBegin + tokens.upperBound,
      keyBegin: span.keyBegin, sharedKeys: sharedKeys, keysPerRange: keysPerRange,
      ranges: (sharedKeys + keysPerRange - 1) / keysPerRange)
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

extension AbsorbedSchedule.Tile {
  /// Queries and partial results.
  func bytes(_ shape: AbsorbedShape) -> Int { shape.bytes(tokens: tokens.count, ranges: ranges) }
}

extension AbsorbedShape {
  fileprivate func bytes(tokens: Int, ranges: Int) -> Int {
    tokens * (queryBytes + ranges * numHeads * partialFloats * 4)
  }
}
