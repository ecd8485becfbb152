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
  /// fp32 out and lse of one token and head.
  var partialFloats: Int { kvLoraRank + 1 }
}

/// How requests are cut that are worked on in latent space, where all heads
/// share one key: rows of queries are pairs of token and head. A pure value, for
/// a request the same in any batch and for any number of threads.
///
/// A request's new tokens are cut into chunks, a chunk's keys into ranges. The
/// chunks are gathered into waves whose queries and partial results fit into a
/// bounded memory, each when its turn comes: a schedule holds requests, however many
/// tokens these have. A wave runs in three phases, each a parallel loop:
///
///     absorb   queries of a group of chunks and a head, projected to the latents
///     attend   one chunk to one range of its keys, which the task packs itself
///     finish   a group of chunks and a head: the ranges' results combined,
///              projected to values, written
struct AbsorbedSchedule: Sendable {
  struct Chunk: Equatable, Sendable {
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
    /// Tokens, tasks and rows of partial results before this chunk's in its wave.
    var firstToken = 0
    var firstTask = 0
    var firstPartial = 0
  }

  /// A chunk and a range of its shared keys, counted from the request's first.
  struct Task: Equatable {
    let chunk: Chunk
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
  let mostChunks: Int

  /// No chunk has more: a range has at least half of the keys that make as many as are
  /// wanted.
  static let mostRanges = 2 * SplitRule.nominalTasks

  /// Most tokens that a group has, and so a chunk.
  static let groupTokens = 64

  /// - Parameter waveBytes: queries and partial results that a wave should not
  ///   exceed; a single chunk may.
  init(_ spans: some Collection<RequestSpan>, shape: AbsorbedShape, waveBytes: Int)
    throws(MLAError)
  {
    self.shape = shape
    var longestFirst = try FixedArray<RequestSpan>(
      capacity: spans.count, for: "a schedule's requests")
    for span in spans { longestFirst.append(span) }
    longestFirst.sort { ($0.keyCount, $1.queryBegin) > ($1.keyCount, $0.queryBegin) }
    self.spans = longestFirst
    var (largest, total, chunks, tasks, tokens) = (0, 0, 0, 0, 0)
    for span in longestFirst {
      let size = Size(span, shape)
      largest = max(largest, size.largestChunk)
      total = saturatingSum(total, size.bytes)
      chunks += size.chunks
      tasks += size.chunks * size.mostRanges
      tokens += span.queryCount
    }
    self.waveBytes = min(total, max(waveBytes, largest))
    // Two groups that follow each other have more than `groupTokens` together.
    let groups = 2 * tokens / Self.groupTokens + 1
    mostTasks = max(tasks, groups * shape.numHeads)
    mostChunks = min(chunks, Self.mostChunksPerWave)
  }

  /// Far more than keep any number of threads busy.
  private static let mostChunksPerWave = 4096

  /// What a request's chunks may have and take.
  private struct Size {
    let chunks: Int
    let mostRanges: Int
    let largestChunk: Int
    let bytes: Int

    init(_ span: RequestSpan, _ shape: AbsorbedShape) {
      chunks = AbsorbedSchedule.chunkCount(span, shape)
      if chunks <= Self.mostToLookAt {
        var (ranges, largest, sum) = (0, 0, 0)
        for index in 0..<chunks {
          let chunk = AbsorbedSchedule.chunk(index, of: chunks, span, shape)
          let bytes = chunk.bytes(shape)
          (ranges, largest, sum) = (max(ranges, chunk.ranges), max(largest, bytes), sum + bytes)
        }
        (mostRanges, largestChunk, bytes) = (ranges, largest, sum)
      } else {
        // One more than are wanted for what division leaves: a range has no fewer keys
        // than there are ranges.
        mostRanges = AbsorbedSchedule.wantedRanges(chunks) + 1
        let tokens = (span.queryCount + chunks - 1) / chunks
        largestChunk = shape.bytes(tokens: tokens, ranges: mostRanges)
        bytes = saturatingProduct(largestChunk, chunks)
      }
    }

    /// Of more, only what they have at most is found out.
    private static let mostToLookAt = 64
  }
}

extension AbsorbedSchedule {
  static func chunkCount(_ span: RequestSpan, _ shape: AbsorbedShape) -> Int {
    let mostTokens = mostChunkTokens(numHeads: shape.numHeads)
    return (span.queryCount + mostTokens - 1) / mostTokens
  }

  /// Chunks of equal size; ranges long enough that partial results take less
  /// memory than the latents that they are made of.
  static func chunk(_ index: Int, of count: Int, _ span: RequestSpan, _ shape: AbsorbedShape)
    -> Chunk
  {
    let context = span.keyCount - span.queryCount
    let first = span.queryCount * index / count
    let tokens = first..<span.queryCount * (index + 1) / count
    let sharedKeys = context + first + 1
    let shortest = max(
      keysPerRow * tokens.count * shape.numHeads, sharedKeys / wantedRanges(count))
    let packs = max(1, (shortest + shape.keysPerPack - 1) / shape.keysPerPack)
    let keysPerRange = packs * shape.keysPerPack
    return Chunk(
      tokens: span.queryBegin + tokens.lowerBound..<span.queryBegin + tokens.upperBound,
      keyBegin: span.keyBegin, sharedKeys: sharedKeys, keysPerRange: keysPerRange,
      ranges: (sharedKeys + keysPerRange - 1) / keysPerRange)
  }

  private static func wantedRanges(_ chunks: Int) -> Int {
    (SplitRule.nominalTasks + chunks - 1) / chunks
  }

  static func mostChunkTokens(numHeads: Int) -> Int {
    max(1, min(groupTokens, rowsPerChunk / numHeads))
  }

  /// Enough that packing a key, which each chunk does anew, is little beside
  /// attending to it; few enough that their results stay near the core.
  private static let rowsPerChunk = 256
  private static let keysPerRow = 4
}

extension AbsorbedSchedule.Chunk {
  /// Queries and partial results.
  func bytes(_ shape: AbsorbedShape) -> Int { shape.bytes(tokens: tokens.count, ranges: ranges) }
}

extension AbsorbedShape {
  fileprivate func bytes(tokens: Int, ranges: Int) -> Int {
    tokens * (queryBytes + ranges * numHeads * partialFloats * 4)
  }
}
