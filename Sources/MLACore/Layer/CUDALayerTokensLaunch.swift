import CMLAPrefill
import MLACUDAKernels

/// The parameter of one launch that brings tokens together, as it fills up.
struct CUDALayerTokensLaunch {
  var parameter = mla_cuda_layer_tokens()

  init(_ arguments: LayerArguments, to tokens: CUDALayerLaunches.Tokens, _ config: LayerConfig) {
    (parameter.latents, parameter.rope) = (tokens.latents, tokens.rope)
    parameter.new_latents = mla_cuda_rows(matrix: arguments.latents)
    parameter.new_rope = mla_cuda_rows(matrix: arguments.rope)
    if let cache = arguments.deviceCache {
      parameter.cache = mla_cuda_paged_cache(cache.slots, cache.table)
    } else {
      parameter.cache.latents.width = Int32(config.attention.kvLoraRank)
      parameter.cache.rope.width = Int32(config.attention.qkRopeHeadDim)
    }
  }

  var isFull: Bool { parameter.span_count == Int32(MLA_CUDA_LAUNCH_SPANS) }

  /// There must be room.
  mutating func append(_ source: LayerArguments.Source) {
    let index = Int(parameter.span_count)
    precondition(index < Int(MLA_CUDA_LAUNCH_SPANS))
    mla_cuda_layer_spans(&parameter)[index] = mla_cuda_layer_span(
      first: parameter.token_count, row: Int32(source.row),
      table_row: Int32(source.tableRow ?? -1), reserved: 0, position: Int64(source.position))
    parameter.span_count += 1
    parameter.token_count += Int32(source.count)
  }

  mutating func removeSpans() { (parameter.span_count, parameter.token_count) = (0, 0) }
}

extension LayerArguments {
  /// Tokens that follow each other in the cache, or new ones.
  struct Source {
    /// Where the first one's latents go.
    let row: Int
    let count: Int
    /// nil: new tokens.
    let tableRow: Int?
    /// From the request's first block on; of new tokens, their row.
    let position: Int
  }

  /// - Parameter span: of keys of one request.
  func forEachSource(
    of span: RowSpan, _ body: (Source) throws(MLAError) -> Void
  ) throws(MLAError) {
    let request = batch.request(ofKey: span.keys.lowerBound)
    let (begin, context) = (batch.keyBegins[request], batch.contextLen(request))
    let positions = span.keys.lowerBound - begin..<span.keys.upperBound - begin
    let cached = positions.clamped(to: 0..<context)
    if let cache = deviceCache, !cached.isEmpty {
      let place = cache.place(request)
      try body(
        Source(
          row: span.row, count: cached.count, tableRow: place.row,
          position: place.position + cached.lowerBound))
    }
    let new = positions.clamped(to: context..<Int.max)
    guard !new.isEmpty else { return }
    try body(
      Source(
        row: span.row + cached.count, count: new.count, tableRow: nil,
        position: batch.queryStartLoc.begin(request) + new.lowerBound - context))
  }

  /// Pointers that a kernel is to read or write.
  func checkMemory(_ launcher: CUDADevice.Launcher) throws(MLAError) {
    let tensors: [(TensorView?, String)] = [
      (q, "q"), (latents, "kv_c_normed"), (rope, "k_pe"), (out, "out"), (lse, "lse"),
    ]
    for case let (tensor?, name) in tensors { try launcher.requireOwnMemory(tensor, name) }
    if let cache = deviceCache {
      try launcher.requireOwnMemory(cache.slots)
      if let table = cache.table.table {
        try launcher.requireOwnMemory(UInt(bitPattern: table), "block_table")
      }
    }
    if let workspace {
      try launcher.requireOwnMemory(UInt(bitPattern: workspace.start), "workspace")
    }
  }
}
