import MLAKernelABI

/// Where rows go: of a type that is known beside it; `stride` in elements.
struct RowTarget {
  let out: UnsafeMutableRawPointer
  let stride: Int

  func from(_ row: Int, _ type: ElementType) -> RowTarget {
    RowTarget(out: out + row * stride * type.bytes, stride: stride)
  }
}

/// Rows to read, wherever they lie.
struct RowSource {
  let rows: UnsafeMutableRawPointer
  /// In elements.
  let stride: Int
  let type: ElementType
  var multiplier: Float = 1
  /// Of the first row's groups, and the next row's a stride behind them.
  var scales: UnsafeMutableRawPointer?

  /// Brings rows of `dim` elements into those of a type.
  func convert(
    dim: Int, count: Int, to target: RowTarget, _ outType: ElementType, _ table: KernelTable
  ) {
    table.convert(
      mla_convert_args(
        rows: rows, row_stride: Int64(stride), num_rows: Int64(count), row_dim: Int64(dim),
        format: type.rawValue, out_format: outType.rawValue, multiplier: multiplier,
        out: target.out, out_stride: Int64(target.stride), scales: scales,
        scale_stride: Int64(stride * type.bytes), scale_group: Int64(DsMLASlot.group)))
  }
}

extension RowSource {
  /// A slot of a cache, and those behind it.
  fileprivate init(_ rows: CacheSlots.Rows, _ block: Int, _ offset: Int) {
    let first = rows.pointer(block: block, offset: offset)
    self.init(
      rows: first, stride: rows.stride / rows.type.bytes, type: rows.type,
      multiplier: rows.multiplier, scales: rows.scalesOffset.map { first + $0 })
  }
}

extension PagedCache {
  /// Tokens that are fetched before they are read where they lie apart: a processor sees
  /// coming only what follows in memory.
  private static var fetchedAhead: Int { 8 }

  /// Brings a request's tokens into rows of a type, dequantized.
  ///
  /// - Parameters:
  ///   - tokens: some of those that are looked at.
  ///   - latents: as wide as the cache has them; nil: there are none, or nobody wants them.
  ///   - rope: likewise.
  func read(
    _ tokens: Range<Int>, of request: Int, latents: RowTarget?, rope: RowTarget?,
    _ type: ElementType, _ table: KernelTable
  ) {
    forEachRun(tokens, of: request) { block, offset, run in
      if run.count < Self.fetchedAhead { fetch(run.lowerBound + Self.fetchedAhead, of: request) }
      func read(_ rows: CacheSlots.Rows, to target: RowTarget?) {
        guard let target else { return }
        RowSource(rows, block, offset).convert(
          dim: rows.width, count: run.count,
          to: target.from(run.lowerBound - tokens.lowerBound, type), type, table)
      }
      read(slots.latents, to: latents)
      read(slots.rope, to: rope)
    }
  }
}
