import CMLAPrefill
import MLACUDAKernels

/// How a batch goes over a CUDA device: some requests after the others, and of these some
/// heads after the others, whose keys and values fit into the bound of memory. A request's
/// head is worked on at once, so that bits do not depend on the bound, nor on the batch, where
/// the library's own kernels serve.
struct CUDALayerPlan {
  /// Requests that follow each other.
  struct Round {
    let requests: Range<Int>
    /// Of keys.
    let rows: Int
    /// At a time.
    let heads: Int
    /// Of the attention.
    let workspaceBytes: Int
  }

  private(set) var rounds: FixedArray<Round>
  private(set) var bytes = 0
  private let batch: LayerBatch
  private let config: LayerConfig

  init(_ batch: LayerBatch, _ config: LayerConfig, _ attention: CUDAAttention) throws(MLAError) {
    self.batch = batch
    self.config = config
    rounds = try FixedArray(capacity: batch.requests.count, for: "rounds of a batch")
    let bound = config.workspaceBound ?? usualBytes
    var next = 0
    while next < batch.requests.count {
      let requests = try requests(from: next, within: bound)
      let rows = batch.keyBegins[requests.upperBound] - batch.keyBegins[requests.lowerBound]
      let wanted = attention.workspaceSize(sizes(requests))
      var (workspaceBytes, most) = (wanted, mostHeads(rows, within: bound - wanted))
      // What attention can do without.
      if most == 0 { (workspaceBytes, most) = (0, mostHeads(rows, within: bound)) }
      guard most > 0 else { throw tooLarge(rows, bound) }
      let round = Round(
        requests: requests, rows: rows, heads: heads(atMost: most), workspaceBytes: workspaceBytes)
      rounds.append(round)
      bytes = max(bytes, CUDALayerMemory(round, config).bytes)
      next = requests.upperBound
    }
  }

  /// Of a round, as attention sees them: queries and keys counted from the round's first.
  func spans(_ requests: Range<Int>) throws(MLAError) -> RequestSpans {
    let queries = try RowOffsets(lengths: requests.lazy.map(batch.queryStartLoc.count))
    let keys = try RowOffsets(lengths: requests.lazy.map(keyCount))
    return RequestSpans(queries: queries, keys: keys, causal: batch.contextOnly ? .none : .end)
  }

  /// Likewise, of what its workspace is for.
  private func sizes(_ requests: Range<Int>) -> CuDNNAttention.Sizes {
    CuDNNAttention.Sizes(
      requests: requests.count, queries: requests.lazy.map(batch.queryStartLoc.count).max() ?? 0,
      keys: requests.lazy.map(keyCount).max() ?? 0, lseHeadStride: 0)
  }

  private func keyCount(_ request: Int) -> Int {
    batch.keyBegins[request + 1] - batch.keyBegins[request]
  }

  /// Where keys of a round come from.
  func keys(_ round: Round) -> some Collection<RowSpan> {
    let first = batch.keyBegins[round.requests.lowerBound]
    return round.requests.lazy.map { request in
      let keys = batch.keyBegins[request]..<batch.keyBegins[request + 1]
      return RowSpan(keys: keys, row: keys.lowerBound - first)
    }
  }

  /// As many as have room with enough heads for a launch to be worth it, one at least.
  private func requests(from first: Int, within bound: Int) throws(MLAError) -> Range<Int> {
    let most = Int(Int32.max) - Int(MLA_CUDA_TILE_QUERIES)
    var end = first
    while end < batch.requests.count {
      let rows = batch.keyBegins[end + 1] - batch.keyBegins[first]
      guard rows <= most else { break }
      let fits = mostHeads(rows, within: bound) >= min(config.attention.numHeads, fewHeads)
      guard end == first || fits else { break }
      end += 1
    }
    guard end > first else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "context_lens[\(first)] = \(batch.contextLen(first)): a request must have at most \(most) "
          + "keys on a CUDA device")
    }
    return first..<end
  }

  /// Of a group. All of them halved, and halved again: few numbers for all batches that there
  /// are, since cuDNN has plans for each.
  private func heads(atMost most: Int) -> Int {
    var heads = config.attention.numHeads
    while heads > most { heads = (heads + 1) / 2 }
    return heads
  }

  private func mostHeads(_ rows: Int, within bound: Int) -> Int {
    let perHead = CUDALayerMemory.headBytes(rows, config)
    let room = bound - CUDALayerMemory.sharedBytes(rows, config)
    return room < 0 ? 0 : perHead == 0 ? config.attention.numHeads : room / perHead
  }

  private func tooLarge(_ rows: Int, _ bound: Int) -> MLAError {
    let needed = CUDALayerMemory.sharedBytes(rows, config) + CUDALayerMemory.headBytes(rows, config)
    return .invalid(
      "config.workspace_bound", bound,
      "this batch needs \(needed) bytes: a request's latents, and keys and values of a head, must "
        + "fit on a CUDA device")
  }
}

/// Enough heads to fill a GPU.
private let fewHeads = 16

/// Where there is no bound: what leaves room for others on devices of today.
private let usualBytes = 1 << 30
