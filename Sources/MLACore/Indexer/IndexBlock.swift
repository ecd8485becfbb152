import MLAKernelABI

/// Some tokens of a request, whose keys are brought and packed once for all of them.
struct IndexBlock {
  let arguments: IndexSelectArguments
  let table: KernelTable
  let kernel: mla_index_kernel
  let layout: IndexPlan.Layout
  /// The worker's memory.
  let start: UnsafeMutableRawPointer
  /// Of the best keys so far.
  let results: UnsafeMutableRawPointer
  let request: Int
  /// Of q.
  let rows: Range<Int>

  private var heads: Int { arguments.q.shape[1] }
  private var headDim: Int { arguments.q.shape[2] }
  private var type: ElementType { arguments.operandType }

  /// - Parameter all: those of the block that are scored here; none where each token gets all
  ///   that it sees.
  func score(_ all: Range<Int>) {
    guard !all.isEmpty, let cache = arguments.cache else { return }
    for row in rows {
      packQueries(row)
      tops[row - rows.lowerBound] = TopKeys(
        wanted: arguments.topk, atOnce: Int(kernel.key_block),
        in: results + (row - rows.lowerBound) * layout.shape.candidates)
    }
    for begin in stride(from: all.lowerBound, to: all.upperBound, by: Int(kernel.key_block)) {
      let keys = begin..<min(begin + Int(kernel.key_block), all.upperBound)
      pack(keys, cache)
      for row in rows {
        let seen = visibleKeys(row)
        if seen > begin && arguments.scoresKeys(of: seen) {
          offer(keys.clamped(to: 0..<seen), of: keys, to: row)
        }
      }
    }
    for token in 0..<rows.count { tops[token].finish(histogram) }
  }

  /// Adds what was found among later keys.
  func take(_ others: UnsafeMutableRawPointer) {
    for token in 0..<rows.count {
      tops[token].take(tops(in: others)[token], histogram)
    }
  }

  private func visibleKeys(_ row: Int) -> Int { arguments.batch.visibleKeys(row, of: request) }

  private var tops: UnsafeMutablePointer<TopKeys> { tops(in: results) }

  private func tops(in results: UnsafeMutableRawPointer) -> UnsafeMutablePointer<TopKeys> {
    (results + layout.results.tops).assumingMemoryBound(to: TopKeys.self)
  }

  private var histogram: TopKeys.Histogram {
    (start + layout.histogram).assumingMemoryBound(to: UInt32.self)
  }

  private func floats(_ offset: Int) -> UnsafeMutablePointer<Float> {
    (start + offset).assumingMemoryBound(to: Float.self)
  }
}

// MARK: - Keys

extension IndexBlock {
  private var scales: UnsafeMutablePointer<Float>? {
    arguments.cacheType == .float8E4M3 ? floats(layout.keyScales) : nil
  }

  private func pack(_ keys: Range<Int>, _ cache: PagedCache) {
    let rows = start + layout.keyRows
    cache.read(
      keys, of: request, latents: RowTarget(out: rows, stride: headDim), rope: nil, type, table)
    if let scales { cache.readScales(keys, of: request, to: scales) }
    kernel.pack(
      rows, stride: headDim, count: keys.count, dim: headDim, type, by: kernel.pack_keys,
      to: start + layout.keys)
  }

  private func offer(_ seen: Range<Int>, of keys: Range<Int>, to row: Int) {
    let token = row - rows.lowerBound
    let scores = floats(layout.scores)
    var args = mla_index_scores_args(
      keys: start + layout.keys, num_keys: Int64(keys.count),
      queries: start + token * layout.shape.queries, num_heads: Int64(heads),
      head_dim: Int64(headDim), weights: weights(token), scales: scales, scores: scores)
    kernel.score(&args)
    tops[token].offer(scores, seen.count, from: seen.lowerBound, histogram)
  }
}

extension PagedCache {
  /// Brings the scales of a request's tokens, which a rotary part is here.
  fileprivate func readScales(
    _ tokens: Range<Int>, of request: Int, to scales: UnsafeMutablePointer<Float>
  ) {
    forEachRun(tokens, of: request) { block, offset, run in
      UnsafeMutableRawPointer(scales + (run.lowerBound - tokens.lowerBound)).copyMemory(
        from: slots.rope.pointer(block: block, offset: offset),
        byteCount: run.count * slots.rope.stride)
    }
  }
}

extension mla_index_kernel {
  fileprivate func pack(
    _ rows: UnsafeRawPointer, stride: Int, count: Int, dim: Int, _ type: ElementType,
    by pack: (UnsafePointer<mla_pack_rows_args>) -> Void, to packed: UnsafeMutableRawPointer
  ) {
    var args = mla_pack_rows_args(
      rows: rows, row_stride: Int64(stride), num_rows: Int64(count), row_dim: Int64(dim),
      format: type.rawValue, packed: packed)
    pack(&args)
  }
}

// MARK: - Queries

extension IndexBlock {
  private func weights(_ token: Int) -> UnsafeMutablePointer<Float> {
    floats(layout.weights + token * layout.shape.weights)
  }

  private func packQueries(_ row: Int) {
    let token = row - rows.lowerBound
    let q = arguments.q
    weights(token).update(
      from: arguments.weights.pointer(at: row * arguments.weights.strides[0])
        .assumingMemoryBound(to: Float.self), count: heads)
    var (source, stride) = (q.row(row, head: 0), q.strides[1])
    if !arguments.takesQueriesAsTheyAre {
      for head in 0..<heads { prepare(row, head, weight: weights(token) + head) }
      (source, stride) = (start + layout.queryRows, headDim)
    }
    kernel.pack(
      source, stride: stride, count: heads, dim: headDim, type, by: kernel.pack_queries,
      to: start + token * layout.shape.queries)
  }

  /// Brings a query into the operands' type, turned and quantized where that is wanted.
  private func prepare(_ row: Int, _ head: Int, weight: UnsafeMutablePointer<Float>) {
    let (q, transform) = (arguments.q, arguments.transform)
    let query = q.row(row, head: head)
    let out = start + (layout.queryRows + head * headDim * type.bytes)
    if transform.isNone { return table.convert(query, q.type, to: out, type, count: headDim) }
    let (numbers, rounded) = (start + layout.queryRow, start + layout.codes)
    table.convert(query, q.type, to: numbers, .float32, count: headDim)
    weight.pointee *= transform.apply(floats(layout.queryRow), headDim)
    let roundedType = transform.scale == nil ? q.type : .float8E4M3
    table.convert(numbers, .float32, to: rounded, roundedType, count: headDim)
    table.convert(rounded, roundedType, to: out, type, count: headDim)
  }
}

// MARK: - Results

extension IndexBlock {
  func write() { for row in rows { write(row) } }

  private func write(_ row: Int) {
    let seen = visibleKeys(row)
    let positions = arguments.indices.pointer(at: row * arguments.indices.strides[0])
      .assumingMemoryBound(to: Int32.self)
    let top = arguments.scoresKeys(of: seen) ? tops[row - rows.lowerBound] : nil
    let count = top?.count ?? seen
    for i in 0..<count { positions[i] = top?.position(i) ?? Int32(i) }
    (positions + count).update(repeating: -1, count: arguments.topk - count)
    if let scores = arguments.scores { write(top, to: scores, row) }
  }

  private func write(_ top: TopKeys?, to scores: TensorView, _ row: Int) {
    let out = scores.pointer(at: row * scores.strides[0]).assumingMemoryBound(to: Float.self)
    let count = top?.count ?? 0
    if let top { for i in 0..<count { out[i] = top.score(i) } }
    (out + count).update(repeating: -.infinity, count: arguments.topk - count)
  }
}
