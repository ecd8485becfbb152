import CMLAPrefill
import MLACore
import MLATestSupport

/// One engine step: of each sequence the rows before `contexts` are in a paged
/// cache, those from there to `ends` are new. Everything around what may be read
/// is poison: unused slots of the cache, gaps between rows, unused table entries.
final class LayerStep {
  struct Result {
    let out: PoisonedTensor
    let lse: PoisonedTensor
  }

  let model: LayerModel
  let sequences: [LayerSequence]
  let contexts: [Int]
  let ends: [Int]
  let cache: StepCache
  let q: PoisonedTensor
  let latents: PoisonedTensor
  let rope: PoisonedTensor
  var queryStarts: [Int32] = [0]
  /// New tokens are no keys.
  var contextOnly = false
  /// New tokens are read from the cache, and handed in nowhere else.
  let newTokensCached: Bool
  /// For each new token the positions that it attends to; nil: all.
  var selection: Selection?
  var contextLens: [Int32]

  init(
    _ model: LayerModel, _ sequences: [LayerSequence], contexts: [Int], ends: [Int]? = nil,
    cache cacheModel: CacheModel? = nil, blockSize: Int = 16, newTokensCached: Bool = false,
    _ random: inout SplitMix64,
    layout change: (inout CacheLayout) -> Void = { _ in }
  ) {
    self.model = model
    self.sequences = sequences
    self.contexts = contexts
    self.ends = ends ?? sequences.map(\.count)
    self.newTokensCached = newTokensCached
    contextLens = contexts.map(Int32.init)
    for (context, end) in zip(contexts, self.ends) {
      queryStarts.append(queryStarts[queryStarts.count - 1] + Int32(end - context))
    }
    let tokens = Int(queryStarts[contexts.count])
    func tensor(heads: Int = 1, _ dim: Int) -> PoisonedTensor {
      PoisonedTensor(
        model.format, rows: tokens, heads: heads, dim: dim,
        headGap: heads > 1 ? random.int(0...9) : 0, rowGap: random.int(0...9))
    }
    q = tensor(heads: model.numHeads, model.qkDim)
    latents = tensor(model.rank)
    rope = tensor(model.rope)
    var layout = CacheLayout(model: cacheModel ?? .plain(model.format), blockSize: blockSize)
    change(&layout)
    cache = StepCache(
      layout, rank: model.rank, ropeDim: model.rope,
      contexts: newTokensCached ? self.ends : contexts, &random)
    for i in sequences.indices { place(i) }
  }

  /// Copies a sequence to where its rows belong.
  private func place(_ i: Int) {
    let sequence = sequences[i]
    for row in 0..<cachedRows(i) {
      cache.set(
        i, row, latents: sequence.latents.values(row: row), rope: sequence.rope.values(row: row))
    }
    for row in contexts[i]..<ends[i] {
      let token = Int(queryStarts[i]) + row - contexts[i]
      for d in 0..<model.rank { latents[token, 0, d] = sequence.latents[row, 0, d] }
      for d in 0..<model.rope { rope[token, 0, d] = sequence.rope[row, 0, d] }
      for head in 0..<model.numHeads {
        for d in 0..<model.qkDim { q[token, head, d] = sequence.q[row, head, d] }
      }
    }
  }

  private func cachedRows(_ i: Int) -> Int { newTokensCached ? ends[i] : contexts[i] }

  /// Calls `body` with the arguments of a forward call.
  func withArguments<T>(
    out: PoisonedTensor, lse: PoisonedTensor, workspace: UnsafeMutableRawBufferPointer? = nil,
    _ body: (inout mla_layer_forward_args) throws -> T
  ) rethrows -> T {
    var tensors = [
      view(q, rank: 3), view(latents), view(rope), view(out, rank: 3), view(lse),
    ]
    let handsInNewTokens = !contextOnly && !newTokensCached
    return try tensors.withUnsafeMutableBufferPointer { tensors in
      try cache.withFields { cached in
        try queryStarts.withUnsafeBufferPointer { starts in
          try contextLens.withUnsafeBufferPointer { lens in
            let first = UnsafePointer(tensors.baseAddress!)
            var args = mla_layer_forward_args(
              struct_size: UInt32(MemoryLayout<mla_layer_forward_args>.size),
              num_requests: Int32(contexts.count), query_start_loc: starts.baseAddress,
              context_lens: lens.baseAddress, q: first,
              kv_c_normed: handsInNewTokens ? first + 1 : nil,
              k_pe: handsInNewTokens ? first + 2 : nil, kv_cache: cached.cache,
              block_table: cached.table, block_table_stride: Int64(cache.tableStride),
              max_blocks: Int32(cache.maxBlocks), reserved: 0, out: first + 3, lse: first + 4,
              workspace: workspace?.baseAddress, workspace_size: Int64(workspace?.count ?? 0),
              stream: nil, output_scale: nil, k_pe_cache: cached.ropeCache,
              context_starts: cached.starts, block_table_rows: cached.tableRows,
              num_table_rows: cached.tableRows == nil ? 0 : Int64(cache.tableRowCount),
              flags: contextOnly ? UInt64(MLA_LAYER_CONTEXT_ONLY) : 0,
              topk_indices: nil, topk_stride: 0, topk: 0,
              new_tokens_cached: newTokensCached ? 1 : 0)
            guard let selection else { return try body(&args) }
            return try selection.entries.withUnsafeBufferPointer { entries in
              args.topk_indices = entries.baseAddress
              args.topk_stride = Int64(selection.stride)
              args.topk = Int32(selection.topk)
              return try body(&args)
            }
          }
        }
      }
    }
  }

  /// - Parameter format: of out; nil: the model's.
  func makeResult(_ format: ElementFormat? = nil) -> Result {
    Result(
      out: PoisonedTensor(
        format ?? model.format, rows: q.rows, heads: model.numHeads, dim: model.vDim, headGap: 5,
        rowGap: 3),
      lse: PoisonedTensor(.float32, rows: model.numHeads, dim: q.rows, rowGap: 7))
  }

  func run(
    _ layer: MLALayer, workspace: UnsafeMutableRawBufferPointer? = nil,
    change: (inout mla_layer_forward_args) -> Void = { _ in }
  ) throws -> Result {
    let result = makeResult()
    try withArguments(out: result.out, lse: result.lse, workspace: workspace) { args in
      change(&args)
      try layer.forward(&args)
    }
    return result
  }

  /// - Parameter scale: nil: out is fp32, else fp8.
  func run(_ layer: MLALayer, quantizedBy scale: Float?) throws -> Result {
    let result = makeResult(scale == nil ? .float32 : .float8E4M3FN)
    try withUnsafePointer(to: scale ?? 0) { pointer in
      try withArguments(out: result.out, lse: result.lse) { args in
        args.output_scale = scale == nil ? nil : pointer
        try layer.forward(&args)
      }
    }
    return result
  }

  func workspaceSize(_ layer: MLALayer) throws -> Int {
    let result = makeResult()
    return Int(
      try withArguments(out: result.out, lse: result.lse) { try layer.workspaceSize(&$0) })
  }

  /// float64 from the same latents: what the cache holds, times its scale, and
  /// the new tokens.
  ///
  /// - Parameter format: what keys are rounded to once they are made, if to anything.
  func reference(roundingKeysTo format: ElementFormat? = nil) -> ReferenceAttention {
    var all = ReferenceAttention(
      q: [], k: [], v: [], qkDim: model.qkDim, vDim: model.vDim, scale: 1)
    let tokens = q.rows
    all.out = [Double](repeating: 0, count: tokens * model.numHeads * model.vDim)
    all.lse = [Double](repeating: -.infinity, count: model.numHeads * tokens)
    for i in sequences.indices where ends[i] > contexts[i] {
      let (latents, rope) = keyRows(i)
      if latents.isEmpty { continue }
      for head in 0..<model.numHeads {
        var (k, v) = model.keysAndValues(head: head, latents: latents, rope: rope)
        if let format { k = k.map { format.value(bits: format.bits($0)) } }
        let first = Int(queryStarts[i])
        let queries = (contexts[i]..<ends[i]).flatMap { row in
          (0..<model.qkDim).map { sequences[i].q[row, head, $0] }
        }
        let one =
          selection.map { $0.reference(first, queries, k, v, model) }
          ?? ReferenceAttention(
            q: queries, k: k, v: v, qkDim: model.qkDim, vDim: model.vDim, scale: model.scale,
            causalOffset: contextOnly ? nil : contexts[i])
        for row in 0..<ends[i] - contexts[i] {
          all.lse[head * tokens + first + row] = one.lse[row]
          for d in 0..<model.vDim {
            all.out[((first + row) * model.numHeads + head) * model.vDim + d] =
              one.out[row * model.vDim + d]
          }
        }
      }
    }
    return all
  }

  /// The rows of a sequence that its queries see, [rows, dim].
  private func keyRows(_ i: Int) -> (latents: [Double], rope: [Double]) {
    var all: (latents: [Double], rope: [Double]) = ([], [])
    for row in 0..<(contextOnly ? contexts[i] : ends[i]) {
      var one: (latents: [Double], rope: [Double]) =
        (sequences[i].latents.values(row: row), sequences[i].rope.values(row: row))
      if row < cachedRows(i) { one = cache.stored(latents: one.latents, rope: one.rope) }
      all.latents += one.latents
      all.rope += one.rope
    }
    return all
  }
}

extension PoisonedTensor {
  /// A row of a tensor without heads.
  func values(row: Int) -> [Double] { (0..<dim).map { self[row, 0, $0] } }
}
