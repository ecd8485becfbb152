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
/// bounded memory. A wave runs in three phases, each a parallel loop:
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
    let firstToken: Int
    let firstTask: Int
    let firstPartial: Int
  }

  struct Wave: Equatable, Sendable {
    var chunks: [Chunk] = []
    /// Neighbouring chunks whose tokens are projected together.
    var groups: [Range<Int>] = []
    var tokenCount = 0
    var taskCount = 0
    /// Rows of partial results, one for each token, head and range.
    var partialRows = 0
  }

  /// A chunk and a range of its shared keys, counted from the request's first.
  struct Task: Equatable {
    let chunk: Chunk
    let range: Int
    let keys: Range<Int>
    /// Whether the keys that only some of the tokens see are this task's as well.
    let isLast: Bool
  }

  let waves: [Wave]
  let shape: AbsorbedShape

  var queryBytes: Int { (waves.map(\.tokenCount).max() ?? 0) * shape.queryBytes }
  var partialBytes: Int { (waves.map(\.partialRows).max() ?? 0) * shape.partialFloats * 4 }
  var mostTasks: Int {
    waves.map { max($0.taskCount, $0.groups.count * shape.numHeads) }.max() ?? 0
  }

  /// Most tokens that a group has, and so a chunk.
  static let groupTokens = 64

  /// - Parameter waveBytes: queries and partial results that a wave should not
  ///   exceed; a single chunk that does has a wave of its own.
  init(_ spans: [RequestSpan], shape: AbsorbedShape, waveBytes: Int) {
    self.shape = shape
    var waves: [Wave] = []
    var bytes = Int.max
    let longestFirst = spans.sorted {
      ($0.keyCount, $1.queryBegin) > ($1.keyCount, $0.queryBegin)
    }
    for span in longestFirst {
      for chunk in Self.cut(span, shape) {
        let rows = chunk.tokens.count * shape.numHeads
        let added =
          chunk.tokens.count * shape.queryBytes + chunk.ranges * rows * shape.partialFloats * 4
        if waves.isEmpty || bytes > waveBytes - added {
          waves.append(Wave())
          bytes = 0
        }
        waves[waves.count - 1].append(chunk, rows: rows)
        bytes += added
      }
    }
    self.waves = waves
  }

  func task(_ index: Int, in wave: Wave) -> Task {
    let chunk = wave.chunk(ofTask: index)
    let range = index - chunk.firstTask
    let begin = range * chunk.keysPerRange
    return Task(
      chunk: chunk, range: range,
      keys: begin..<min(begin + chunk.keysPerRange, chunk.sharedKeys),
      isLast: range == chunk.ranges - 1)
  }

  /// Chunks of equal size; ranges long enough that partial results take less
  /// memory than the latents that they are made of.
  private static func cut(_ span: RequestSpan, _ shape: AbsorbedShape) -> [Chunk] {
    let mostTokens = mostChunkTokens(numHeads: shape.numHeads)
    let count = (span.queryCount + mostTokens - 1) / mostTokens
    let context = span.keyCount - span.queryCount
    return (0..<count).map { i in
      let first = span.queryCount * i / count
      let tokens = first..<span.queryCount * (i + 1) / count
      let sharedKeys = context + first + 1
      let wanted = (SplitRule.nominalTasks + count - 1) / count
      let shortest = max(keysPerRow * tokens.count * shape.numHeads, sharedKeys / wanted)
      let packs = max(1, (shortest + shape.keysPerPack - 1) / shape.keysPerPack)
      let keysPerRange = packs * shape.keysPerPack
      return Chunk(
        tokens: span.queryBegin + tokens.lowerBound..<span.queryBegin + tokens.upperBound,
        keyBegin: span.keyBegin, sharedKeys: sharedKeys, keysPerRange: keysPerRange,
        ranges: (sharedKeys + keysPerRange - 1) / keysPerRange, firstToken: 0, firstTask: 0,
        firstPartial: 0)
    }
  }

  static func mostChunkTokens(numHeads: Int) -> Int {
    max(1, min(groupTokens, rowsPerChunk / numHeads))
  }

  /// Enough that packing a key, which each chunk does anew, is little beside
  /// attending to it; few enough that their results stay near the core.
  private static let rowsPerChunk = 256
  private static let keysPerRow = 4
}

extension AbsorbedSchedule.Wave {
  fileprivate mutating func append(_ chunk: AbsorbedSchedule.Chunk, rows: Int) {
    if let last = groups.last,
      tokenCount + chunk.tokens.count - chunks[last.lowerBound].firstToken
        <= AbsorbedSchedule.groupTokens
    {
      groups[groups.count - 1] = last.lowerBound..<last.upperBound + 1
    } else {
      groups.append(chunks.count..<chunks.count + 1)
    }
    chunks.append(
      AbsorbedSchedule.Chunk(
        tokens: chunk.tokens, keyBegin: chunk.keyBegin, sharedKeys: chunk.sharedKeys,
        keysPerRange: chunk.keysPerRange, ranges: chunk.ranges, firstToken: tokenCount,
        firstTask: taskCount, firstPartial: partialRows))
    tokenCount += chunk.tokens.count
    taskCount += chunk.ranges
    partialRows += chunk.ranges * rows
  }

  fileprivate func chunk(ofTask index: Int) -> AbsorbedSchedule.Chunk {
    chunks[
      firstNumber(in: chunks.indices) { chunks[$0].firstTask + chunks[$0].ranges > index }]
  }
}
