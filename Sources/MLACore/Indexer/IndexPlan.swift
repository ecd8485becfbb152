import MLAKernelABI

/// How a call's tokens are cut into blocks, whose keys are brought and packed once, and the
/// memory of who works on them.
struct IndexPlan {
  /// Most tokens of a block.
  let tokens: Int
  let parts: IndexParts
  /// Of who works on a part.
  let scratch: WorkerScratch
  /// Of blocks with several parts: what is kept of each part.
  private let kept: WorkerScratch
  let layout: Layout

  var bytes: Int { kept.end + memoryAlignment }

  init(_ a: IndexSelectArguments, _ kernel: mla_index_kernel) throws(MLAError) {
    let rows = a.batch.requests.reduce(0) { $0 + a.batch.rows(of: $1).count }
    let threads = HostSettings.threads
    let shape = Shape(a, kernel)
    let most = max(1, min(Self.packedBytes / shape.queries, Self.candidateBytes / shape.candidates))
    // Threads before keys that are brought once.
    tokens = max(1, min(most, (rows + threads - 1) / threads))
    parts = try IndexParts(a, tokens: tokens, keyBlock: Int(kernel.key_block), threads: threads)
    layout = Layout(shape, tokens: tokens)
    scratch = WorkerScratch(
      workers: max(1, min(threads, parts.count)), bytes: layout.end, at: 0)
    kept = WorkerScratch(workers: parts.keptCount, bytes: layout.results.end, at: scratch.end)
  }

  /// Of packed queries, which stay in the L2 cache while keys pass by.
  private static let packedBytes = 256 << 10
  /// Far more than a model's topk takes.
  private static let candidateBytes = 4 << 20

  /// Where the best keys of a part's tokens are to be.
  func results(_ part: IndexPart, worker: Int, _ start: UnsafeMutableRawPointer)
    -> UnsafeMutableRawPointer
  {
    if let number = part.kept { return kept.of(number, start) }
    return scratch.of(worker, start) + layout.results.start
  }
}

extension IndexPlan {
  /// Bytes of what there is one of, or one a token.
  struct Shape {
    let queries: Int
    let weights: Int
    let candidates: Int
    let keys: Int
    let keyRows: Int
    let keyNumbers: Int
    let queryRows: Int
    let queryRow: Int

    fileprivate init(_ a: IndexSelectArguments, _ kernel: mla_index_kernel) {
      let (heads, dim) = (a.q.shape[1], a.q.shape[2])
      let block = Int(kernel.key_block)
      let bytes = a.operandType.bytes
      queries = Int(kernel.packed_queries_bytes(Int64(heads), Int64(dim)))
      weights = alignedUp(heads * 4)
      candidates = alignedUp(TopKeys.bytes(wanted: a.topk, atOnce: block))
      keys = Int(kernel.packed_keys_bytes(Int64(block), Int64(dim)))
      keyRows = alignedUp(block * dim * bytes)
      keyNumbers = alignedUp(block * 4)
      queryRows = a.takesQueriesAsTheyAre ? 0 : alignedUp(heads * dim * bytes)
      queryRow = a.takesQueriesAsTheyAre ? 0 : alignedUp(dim * 4)
    }
  }

  /// Where a worker has what, in bytes from its beginning.
  struct Layout {
    let shape: Shape
    let weights: Int
    let results: Results
    let keys: Int
    let keyRows: Int
    let keyScales: Int
    let scores: Int
    let queryRows: Int
    let queryRow: Int
    let codes: Int
    let histogram: Int
    let end: Int

    fileprivate init(_ shape: Shape, tokens: Int) {
      self.shape = shape
      weights = tokens * shape.queries
      results = Results(shape, tokens: tokens, start: weights + tokens * shape.weights)
      keys = results.start + results.end
      keyRows = keys + shape.keys
      keyScales = keyRows + shape.keyRows
      scores = keyScales + shape.keyNumbers
      queryRows = scores + shape.keyNumbers
      queryRow = queryRows + shape.queryRows
      codes = queryRow + shape.queryRow
      histogram = codes + shape.queryRow
      end = histogram + TopKeys.histogramBytes
    }
  }

  /// The best keys of a block's tokens, in bytes from their beginning.
  struct Results {
    /// Where a worker has its own.
    let start: Int
    let tops: Int
    let end: Int

    fileprivate init(_ shape: Shape, tokens: Int, start: Int) {
      self.start = start
      tops = tokens * shape.candidates
      end = tops + alignedUp(tokens * MemoryLayout<TopKeys>.stride)
    }
  }
}

extension IndexSelectArguments {
  /// Whether a token that sees so many keys has them scored; it gets them all otherwise.
  func scoresKeys(of visible: Int) -> Bool {
    visible > 0 && (visible > topk || scores != nil)
  }

  /// What queries are before they are multiplied.
  private var queryType: ElementType { transform.scale == nil ? q.type : .float8E4M3 }

  /// The type that queries and keys are multiplied in, which has all of their numbers.
  var operandType: ElementType {
    switch (queryType, cacheType) {
    case (.float8E4M3, .float8E4M3): .bfloat16
    case (.float8E4M3, let other), (let other, .float8E4M3): other
    case (let type, let other): type == other ? type : .float32
    }
  }

  var takesQueriesAsTheyAre: Bool { transform.isNone && q.type == operandType }
}
