import MLAKernelABI

/// The latents and rotary parts of a batch's keys, wherever they lie: brought
/// from the paged cache and from the new tokens into rows of the layer's dtype.
struct LatentGather {
  let arguments: LayerArguments
  let config: LayerConfig
  let table: KernelTable

  /// Rows of the layer's dtype; `stride` in elements.
  struct Rows {
    let out: UnsafeMutableRawPointer
    let stride: Int

    func from(_ row: Int, _ type: ElementType) -> Rows {
      Rows(out: out + row * stride * type.bytes, stride: stride)
    }
  }

  /// - Parameter keys: of one request, numbered as in `LayerBatch.keyBegins`.
  func gather(_ keys: Range<Int>, latents: Rows, rope: Rows) {
    let batch = arguments.batch
    let request = batch.request(ofKey: keys.lowerBound)
    let (begin, context) = (batch.keyBegins[request], batch.contextLen(request))
    let positions = keys.lowerBound - begin..<keys.upperBound - begin
    if let cache = arguments.cache {
      cache.forEachRun(positions.clamped(to: 0..<context), of: request) { first, run in
        let slots = Slots(
          first: cache.tensor.pointer(at: first), stride: cache.tensor.strides[1],
          count: run.count)
        let row = run.lowerBound - positions.lowerBound
        copy(slots, latents: latents.from(row, type), rope: rope.from(row, type))
      }
    }
    let new = positions.clamped(to: context..<Int.max)
    guard !new.isEmpty else { return }
    let row = new.lowerBound - positions.lowerBound
    let token = batch.queryStartLoc.begin(request) + new.lowerBound - context
    for (tensor, rows) in [(arguments.latents, latents), (arguments.rope, rope)] {
      guard let tensor, tensor.shape[1] > 0 else { continue }
      read(
        Source(
          rows: tensor.pointer(at: token * tensor.strides[0]), stride: tensor.strides[0],
          type: tensor.type),
        dim: tensor.shape[1], count: new.count, to: rows.from(row, type))
    }
  }

  /// Tokens that follow each other in a block of the cache.
  private struct Slots {
    let first: UnsafeMutableRawPointer
    /// In elements of the cache's tensor.
    let stride: Int
    let count: Int
  }

  private func copy(_ slots: Slots, latents: Rows, rope: Rows) {
    let (rank, ropeDim) = (config.attention.kvLoraRank, config.attention.qkRopeHeadDim)
    switch config.cacheFormat {
    case .plain(let type, let scale):
      let source = Source(rows: slots.first, stride: slots.stride, type: type, multiplier: scale)
      read(source, dim: rank, count: slots.count, to: latents)
      read(source.advanced(by: rank), dim: ropeDim, count: slots.count, to: rope)
    case .fp8DsMLA:
      let quantized = Source(
        rows: slots.first, stride: slots.stride, type: .float8E4M3,
        scales: slots.first + DsMLASlot.scalesOffset)
      let rotary = Source(
        rows: slots.first + DsMLASlot.ropeOffset, stride: slots.stride / 2, type: .bfloat16)
      read(quantized, dim: rank, count: slots.count, to: latents)
      read(rotary, dim: ropeDim, count: slots.count, to: rope)
    }
  }

  /// Rows to read.
  private struct Source {
    var rows: UnsafeMutableRawPointer
    /// In elements.
    let stride: Int
    let type: ElementType
    var multiplier: Float = 1
    /// Of the first row's groups, and the next row's a stride behind them.
    var scales: UnsafeMutableRawPointer?

    func advanced(by elements: Int) -> Source {
      var source = self
      source.rows += elements * type.bytes
      return source
    }
  }

  private func read(_ source: Source, dim: Int, count: Int, to out: Rows) {
    if dim == 0 { return }
    table.convert(
      mla_convert_args(
        rows: source.rows, row_stride: Int64(source.stride), num_rows: Int64(count),
        row_dim: Int64(dim), format: source.type.rawValue, out_format: type.rawValue,
        multiplier: source.multiplier, out: out.out, out_stride: Int64(out.stride),
        scales: source.scales, scale_stride: Int64(source.stride * source.type.bytes),
        scale_group: Int64(DsMLASlot.group)))
  }

  private var type: ElementType { config.type }
}
