import MLAKernelABI

/// Attention in latent space of a token's heads to the keys that it has selected: these are
/// read where they lie in the cache, if they lie there as the kernel reads them, else brought
/// together a block at a time.
struct SelectedAttention {
  private let selected: SelectedKeys
  private let source: LatentGather
  private let scratch: SelectedScratch
  private let kernel: mla_rows_kernel
  /// Whether rows in the cache are as the kernel reads them.
  private let isInPlace: Bool

  init(_ selected: SelectedKeys, _ source: LatentGather, _ scratch: SelectedScratch) {
    (self.selected, self.source, self.scratch) = (selected, source, scratch)
    kernel = source.table.rows(for: source.config.type)
    isInPlace =
      scratch.rowDim == source.config.latentKeyDim
      && source.arguments.cache?.slots.areRows(of: source.config.type) ?? false
  }

  /// - Parameters:
  ///   - queries: of the tile's one token, a row for each head.
  ///   - partials: where the range's results of these go.
  func attend(
    _ task: SharedKeySchedule.Task, _ queries: UnsafeMutableRawPointer,
    partials: UnsafeMutablePointer<Float>, scratch start: UnsafeMutableRawPointer
  ) {
    let (config, batch) = (source.config, source.arguments.batch)
    let token = task.tile.span.queryBegin
    let request = batch.queryStartLoc.request(ofRow: token)
    let span = batch.span(request)
    var positions = AscendingPositions(
      selected.row(token), limit: span.keysSeen(by: token - span.queryBegin), window: start)
    var left = task.keys.count
    let block = Int(kernel.row_block)
    let listed = (start + scratch.positionsOffset).assumingMemoryBound(to: Int32.self)
    var (current, next) = (listed, listed + block)
    func advance(to list: UnsafeMutablePointer<Int32>) -> Int {
      let count = positions.next(min(block, left), to: list)
      left -= count
      return count
    }
    _ = positions.skip(task.keys.lowerBound)
    var count = advance(to: current)
    var isFirst = true
    // Once without keys: that, too, is a result.
    repeat {
      let following = advance(to: next)
      var args = mla_attend_rows_args()
      args.dims = config.latentDims
      args.q = UnsafeRawPointer(queries)
      args.q_stride = Int64(config.latentKeyDim)
      args.num_queries = Int64(config.attention.numHeads)
      args.rows = rows(UnsafeBufferPointer(start: current, count: count), of: request, start)
      args.num_rows = Int64(count)
      args.scale = Float(config.attention.scale)
      args.format = config.type.rawValue
      args.is_first = isFirst ? 1 : 0
      args.out = following == 0 ? partials : nil
      args.out_stride = Int64(partialRowFloats(config.attention.kvLoraRank))
      args.scratch = start + scratch.kernelOffset
      let ahead = UnsafeBufferPointer(start: next, count: following)
      (args.next, args.num_next) = fetched(ahead, of: request, start)
      args.next_bytes = Int64(source.arguments.cache?.slots.fetchedBytes ?? 0)
      kernel.attend(&args)
      (current, next, count, isFirst) = (next, current, following, false)
    } while count > 0
  }

  /// Addresses of the keys at some positions.
  private func rows(
    _ positions: UnsafeBufferPointer<Int32>, of request: Int, _ start: UnsafeMutableRawPointer
  ) -> UnsafePointer<UnsafeRawPointer?> {
    let (config, cache) = (source.config, source.arguments.cache)
    let cached = isInPlace ? source.arguments.batch.cachedKeys(request) : 0
    let places = (start + scratch.placesOffset).assumingMemoryBound(to: UnsafeRawPointer?.self)
    let rows = RowTarget(out: start + scratch.rowsOffset, stride: scratch.rowDim)
    let ropeOffset = config.attention.kvLoraRank * config.type.bytes
    let (dim, elementBytes) = (config.latentKeyDim, config.type.bytes)
    for (i, position) in positions.enumerated() {
      let position = Int(position)
      if position < cached {
        places[i] = cache?.latent(position, of: request)
        continue
      }
      let row = rows.from(i, config.type)
      source.gather(
        position..<position + 1, of: request, latents: row,
        rope: RowTarget(out: row.out + ropeOffset, stride: row.stride))
      (row.out + dim * elementBytes).initializeMemory(
        as: UInt8.self, repeating: 0, count: (scratch.rowDim - dim) * elementBytes)
      places[i] = UnsafeRawPointer(row.out)
    }
    return UnsafePointer(places)
  }

  /// Those that the next call's keys will be read from, as far as they are in the cache.
  private func fetched(
    _ positions: UnsafeBufferPointer<Int32>, of request: Int, _ start: UnsafeMutableRawPointer
  ) -> (UnsafePointer<UnsafeRawPointer?>, Int64) {
    let places = (start + scratch.aheadOffset).assumingMemoryBound(to: UnsafeRawPointer?.self)
    guard let cache = source.arguments.cache else { return (UnsafePointer(places), 0) }
    let cached = source.arguments.batch.cachedKeys(request)
    var count = 0
    for position in positions where Int(position) < cached {
      places[count] = cache.latent(Int(position), of: request)
      count += 1
    }
    return (UnsafePointer(places), Int64(count))
  }
}

/// What a worker keeps while it attends to selected keys:
///
///     window     of `AscendingPositions`
///     positions  [2][row_block]
///     places     [row_block] addresses of rows
///     ahead      [row_block] of those to be fetched
///     rows       [row_block][rowDim] of the layer's dtype
///     kernel     the kernel's own
struct SelectedScratch {
  /// Elements of a key, and zeros up to a multiple of what the kernel reads.
  let rowDim: Int
  let positionsOffset: Int
  let placesOffset: Int
  let aheadOffset: Int
  let rowsOffset: Int
  let kernelOffset: Int
  let bytes: Int

  init(_ config: LayerConfig, _ kernel: mla_rows_kernel) {
    let block = Int(kernel.row_block)
    rowDim = (config.latentKeyDim + 31) / 32 * 32
    positionsOffset = AscendingPositions.windowBytes
    placesOffset = positionsOffset + alignedUp(2 * block * MemoryLayout<Int32>.stride)
    let addressBytes = alignedUp(block * MemoryLayout<UnsafeRawPointer>.stride)
    aheadOffset = placesOffset + addressBytes
    rowsOffset = aheadOffset + addressBytes
    kernelOffset = rowsOffset + alignedUp(block * rowDim * config.type.bytes)
    bytes =
      kernelOffset
      + Int(kernel.scratch_bytes(config.latentDims, Int64(config.attention.numHeads)))
  }
}
