import MLAKernelABI

/// How a call's tokens are cut into blocks, whose keys are brought and packed once, and the
/// memory of who works on one.
struct IndexPlan {
  /// Most tokens of a block.
  let tokens: Int
  let scratch: WorkerScratch
  let layout: Layout
  /// Of each request's first block, and at the end how many there are.
  private let begins: FixedArray<Int>

  var bytes: Int { scratch.end + memoryAlignment }
  var blockCount: Int { begins[begins.count - 1] }

  init(_ a: IndexSelectArguments, _ kernel: mla_index_kernel) throws(MLAError) {
    let rows = a.batch.requests.reduce(0) { $0 + a.batch.rows(of: $1).count }
    let threads = HostSettings.threads
    let shape = Shape(a, kernel)
    let most = max(1, min(Self.packedBytes / shape.queries, Self.candidateBytes / shape.candidates))
    // Threads before keys that are brought once.
    let tokens = max(1, min(most, (rows + threads - 1) / threads))
    var begins = try FixedArray<Int>(
      capacity: a.batch.requests.count + 1, for: "blocks of a batch")
    begins.append(0)
    for request in a.batch.requests {
      begins.append(begins[request] + (a.batch.rows(of: request).count + tokens - 1) / tokens)
    }
    (self.begins, self.tokens) = (begins, tokens)
    layout = Layout(shape, tokens: tokens)
    scratch = WorkerScratch(
      workers: max(1, min(threads, begins[begins.count - 1])), bytes: layout.end, at: 0)
  }

  /// Of packed queries, which stay in the L2 cache while keys pass by.
  private static let packedBytes = 256 << 10
  /// Far more than a model's topk takes.
  private static let candidateBytes = 4 << 20

  /// A block's request, and its rows of q.
  func block(_ number: Int, of batch: IndexBatch) -> (request: Int, rows: Range<Int>) {
    let request = firstNumber(in: batch.requests) { begins[$0 + 1] > number }
    let rows = batch.rows(of: request)
    let first = rows.lowerBound + (number - begins[request]) * tokens
    return (request, first..<min(first + tokens, rows.upperBound))
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
    let candidates: Int
    let keys: Int
    let keyRows: Int
    let keyScales: Int
    let scores: Int
    let queryRows: Int
    let queryRow: Int
    let codes: Int
    let histogram: Int
    let tops: Int
    let end: Int

    fileprivate init(_ shape: Shape, tokens: Int) {
      self.shape = shape
      weights = tokens * shape.queries
      candidates = weights + tokens * shape.weights
      keys = candidates + tokens * shape.candidates
      keyRows = keys + shape.keys
      keyScales = keyRows + shape.keyRows
      scores = keyScales + shape.keyNumbers
      queryRows = scores + shape.keyNumbers
      queryRow = queryRows + shape.queryRows
      codes = queryRow + shape.queryRow
      histogram = codes + shape.queryRow
      tops = histogram + TopKeys.histogramBytes
      end = tops + alignedUp(tokens * MemoryLayout<TopKeys>.stride)
    }
  }
}

extension IndexSelectArguments {
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
