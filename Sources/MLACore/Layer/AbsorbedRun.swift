import MLAKernelABI

/// Carries out attention in latent space: keys are the latents as they lie in
/// the cache, the same for all heads, and what kv_b_proj would have made of each
/// key it makes of each query and result instead.
struct AbsorbedRun: SharedKeyRun {
  let schedule: SharedKeySchedule
  let memory: SharedKeyMemory
  let scratch: AbsorbedScratch
  /// Where latents, weights and kernels are.
  let keys: LatentKeys
  let start: UnsafeMutableRawPointer
  let waves: SharedKeySchedule.Waves
  var attention: SharedKeyAttention<LatentsAsKeys>
  /// nil: tokens attend to all they see.
  private let selected: SelectedAttention?

  init(
    _ plan: LayerPlan.Absorbed, _ keys: LatentKeys, waves: SharedKeySchedule.Waves,
    start: UnsafeMutableRawPointer
  ) {
    (schedule, memory, scratch) = (plan.schedule, plan.memory, plan.scratch)
    (self.keys, self.waves, self.start) = (keys, waves, start)
    attention = SharedKeyAttention(
      shape: schedule.shape, kernel: keys.attention, table: keys.source.table,
      dims: keys.config.latentDims, scale: Float(keys.config.attention.scale),
      type: keys.config.type,
      keys: LatentsAsKeys(source: keys.source, kernel: keys.attention),
      scratch: scratch.attending, partials: start.assumingMemoryBound(to: Float.self))
    selected = scratch.selected.flatMap { scratch in
      keys.source.arguments.batch.selected.map { SelectedAttention($0, keys.source, scratch) }
    }
  }

  func work(on wave: SharedKeySchedule.Wave) {
    forEachGroupAndHead(of: wave, absorb)
    parallel(wave.end.task) { index, worker in
      let task = wave.task(index)
      let queries = queries(task.tile.place.token, head: 0)
      if let selected {
        selected.attend(
          task, queries, partials: attention.partialRows(task.tile, range: task.range),
          scratch: scratch(of: worker))
      } else {
        attention.attend(
          task, .init(start: queries, stride: keyDim), scratch: scratch(of: worker))
      }
    }
    forEachGroupAndHead(of: wave, finish)
  }

  /// Of a group.
  private typealias Tiles = Slice<FixedArray<SharedKeySchedule.Tile>>

  private func forEachGroupAndHead(
    of wave: SharedKeySchedule.Wave,
    _ body: (Tiles, _ head: Int, UnsafeMutableRawPointer) -> Void
  ) {
    parallel(wave.groups.count * config.attention.numHeads) { task, worker in
      // Groups follow each other while a head's weights are in cache.
      let (head, group) = task.quotientAndRemainder(dividingBy: wave.groups.count)
      body(wave.tiles[wave.groups[group]], head, scratch(of: worker))
    }
  }

  // MARK: Queries to the latents

  private func absorb(
    _ tiles: Tiles, head: Int, scratch rows: UnsafeMutableRawPointer
  ) {
    let (q, elementBytes) = (source.arguments.q, config.type.bytes)
    let out = queries(tiles[tiles.startIndex].place.token, head: head)
    var count = 0
    for tile in tiles {
      let token = tile.tokens.lowerBound
      let from = q.row(token, head: head)
      copy(
        from, q.strides[0], tile.tokens.count, nope, to: rows + count * nope * elementBytes,
        nope)
      copy(
        from + nope * elementBytes, q.strides[0], tile.tokens.count, rope,
        to: out + (count * queryStride + rank) * elementBytes, queryStride)
      count += tile.tokens.count
    }
    if nope > 0 {
      project(
        rows, count, nope, keys.weights.queries(head: head), rank, out: out,
        format: config.type, stride: queryStride)
    } else {
      for token in 0..<count {
        (out + token * queryStride * elementBytes).initializeMemory(
          as: UInt8.self, repeating: 0, count: rank * elementBytes)
      }
    }
  }

  private func copy(
    _ rows: UnsafeMutableRawPointer, _ stride: Int, _ count: Int, _ dim: Int,
    to out: UnsafeMutableRawPointer, _ outStride: Int
  ) {
    if dim == 0 { return }
    let format = config.type.rawValue
    source.table.convert(
      mla_convert_args(
        rows: rows, row_stride: Int64(stride), num_rows: Int64(count), row_dim: Int64(dim),
        format: format, out_format: format, multiplier: 1, out: out, out_stride: Int64(outStride)))
  }

  /// - Parameter rows: contiguous, and at the start of a worker's scratch.
  private func project(
    _ rows: UnsafeMutableRawPointer, _ count: Int, _ dim: Int,
    _ weights: UnsafeMutableRawPointer, _ outDim: Int, out: UnsafeMutableRawPointer,
    format: ElementType, stride: Int
  ) {
    let tokens = rows + scratch.tokensOffset
    var packing = mla_pack_rows_args(
      rows: rows, row_stride: Int64(dim), num_rows: Int64(count), row_dim: Int64(dim),
      format: config.type.rawValue, packed: tokens)
    keys.projection.pack_tokens(&packing)
    var args = mla_project_args(
      tokens: tokens, num_tokens: Int64(count), weights: weights, num_weights: Int64(outDim),
      row_dim: Int64(dim), out_format: format.rawValue, out: out, out_stride: Int64(stride))
    keys.projection.project(&args)
  }

  // MARK: Results to values

  private func finish(
    _ tiles: Tiles, head: Int, scratch rows: UnsafeMutableRawPointer
  ) {
    var count = 0
    for tile in tiles {
      attention.combine(
        tile, head: head, into: rows + count * rank * config.type.bytes, outStride: rank,
        config.type, times: 1,
        lse: source.arguments.lse?.lse(tile.tokens.lowerBound, head: head))
      count += tile.tokens.count
    }
    let products = rows + scratch.productsOffset
    project(
      rows, count, rank, keys.weights.values(head: head), vDim, out: products, format: .float32,
      stride: vDim)
    let out = source.arguments.out
    count = 0
    for tile in tiles {
      source.table.convert(
        mla_convert_args(
          rows: products + count * vDim * 4, row_stride: Int64(vDim),
          num_rows: Int64(tile.tokens.count), row_dim: Int64(vDim),
          format: Int32(MLA_FORMAT_FLOAT32), out_format: out.type.rawValue,
          multiplier: source.arguments.outMultiplier,
          out: out.row(tile.tokens.lowerBound, head: head), out_stride: Int64(out.strides[0])))
      count += tile.tokens.count
    }
  }

  // MARK: Places

  /// A row of the wave's queries.
  private func queries(_ token: Int, head: Int) -> UnsafeMutableRawPointer {
    start + token * schedule.shape.queryBytes + head * keyDim * config.type.bytes
  }

  private var config: LayerConfig { keys.config }
  private var source: LatentGather { keys.source }
  private var nope: Int { config.attention.qkNopeHeadDim }
  private var rope: Int { config.attention.qkRopeHeadDim }
  private var vDim: Int { config.attention.vHeadDim }
  private var rank: Int { config.attention.kvLoraRank }
  private var keyDim: Int { config.latentKeyDim }
  /// Elements from a token's queries to the next one's, of the same head.
  private var queryStride: Int { config.attention.numHeads * keyDim }
}
