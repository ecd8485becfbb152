import MLAKernelABI

/// The latents and rotary parts of a batch's keys, wherever they lie: brought
/// from the paged cache and from the new tokens into rows of the layer's dtype.
struct LatentGather {
  let arguments: LayerArguments
  let config: LayerConfig
  let table: KernelTable

  /// Tokens that are fetched before they are read where they lie apart: a processor sees
  /// coming only what follows in memory.
  private static var fetchedAhead: Int { 8 }

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
      let slots = cache.slots
      cache.forEachRun(positions.clamped(to: 0..<context), of: request) { block, offset, run in
        let row = run.lowerBound - positions.lowerBound
        let ahead = run.lowerBound + Self.fetchedAhead
        if run.count < Self.fetchedAhead, ahead < context { cache.fetch(ahead, of: request) }
        func read(_ rows: CacheSlots.Rows, dim: Int, to out: Rows) {
          // There may be no memory for none.
          if dim == 0 { return }
          self.read(
            Source(rows, block, offset), dim: dim, count: run.count, to: out.from(row, type))
        }
        read(slots.latents, dim: config.attention.kvLoraRank, to: latents)
        read(slots.rope, dim: config.attention.qkRopeHeadDim, to: rope)
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

  /// Rows to read.
  fileprivate struct Source {
    let rows: UnsafeMutableRawPointer
    /// In elements.
    let stride: Int
    let type: ElementType
    var multiplier: Float = 1
    /// Of the first row's groups, and the next row's a stride behind them.
    var scales: UnsafeMutableRawPointer?
  }

  private func read(_ source: Source, dim: Int, count: Int, to out: Rows) {
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

extension LatentGather.Source {
  /// A slot of a cache, and those behind it.
  fileprivate init(_ rows: CacheSlots.Rows, _ block: Int, _ offset: Int) {
    let first = rows.pointer(block: block, offset: offset)
    self.init(
      rows: first, stride: rows.stride / rows.type.bytes, type: rows.type,
      multiplier: rows.multiplier, scales: rows.scalesOffset.map { first + $0 })
  }
}
