import MLAKernelABI

/// Carries out attention in latent space: keys are the latents as they lie in
/// the cache, the same for all heads, and what kv_b_proj would have made of each
/// key it makes of each query and result instead.
struct AbsorbedRun {
  let schedule: AbsorbedSchedule
  let memory: AbsorbedMemory
  let scratch: AbsorbedScratch
  /// Where latents, weights and kernels are.
  let keys: LatentKeys
  let start: UnsafeMutableRawPointer
  /// Taken before anything is written.
  let waves: AbsorbedSchedule.Waves
  /// Of the wave that is worked on.
  private var partials: UnsafeMutablePointer<Float>

  init(
    _ plan: LayerPlan.Absorbed, _ keys: LatentKeys, waves: AbsorbedSchedule.Waves,
    start: UnsafeMutableRawPointer
  ) {
    (schedule, memory, scratch) = (plan.schedule, plan.memory, plan.scratch)
    (self.keys, self.waves, self.start) = (keys, waves, start)
    partials = start.assumingMemoryBound(to: Float.self)
  }

  func execute() {
    var (waves, run) = (waves, self)
    while let wave = waves.next() {
      run.partials = (start + memory.partialsOffset(wave, schedule.shape))
        .assumingMemoryBound(to: Float.self)
      run.work(on: wave)
    }
  }

  private func work(on wave: AbsorbedSchedule.Wave) {
    forEachGroupAndHead(of: wave, absorb)
    parallel(wave.end.task) { task, worker in
      attend(wave.task(task), scratch: scratch(of: worker))
    }
    forEachGroupAndHead(of: wave, finish)
  }

  private func parallel(_ count: Int, _ body: (_ task: Int, _ worker: Int) -> Void) {
    ParallelLoop.runTasks(count, workers: memory.scratch.workers, kernel, body)
  }

  /// Of a group.
  private typealias Tiles = Slice<FixedArray<AbsorbedSchedule.Tile>>

  private func forEachGroupAndHead(
    of wave: AbsorbedSchedule.Wave,
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

  // MARK: Attention

  private func attend(_ task: AbsorbedSchedule.Task, scratch: UnsafeMutableRawPointer) {
    let tile = task.tile
    let rows = tile.tokens.count * config.attention.numHeads
    for begin in stride(
      from: task.keys.lowerBound, to: task.keys.upperBound, by: schedule.shape.keysPerPack)
    {
      let end = min(begin + schedule.shape.keysPerPack, task.keys.upperBound)
      pack(tile.keyBegin + begin..<tile.keyBegin + end, scratch)
      attend(
        task, rows: 0..<rows, keyCount: end - begin, isFirst: begin == task.keys.lowerBound,
        scratch)
    }
    guard task.isLast, tile.tokens.count > 1 else { return }
    let shared = tile.keyBegin + tile.sharedKeys
    pack(shared..<shared + tile.tokens.count - 1, scratch)
    for token in 1..<tile.tokens.count {
      let first = token * config.attention.numHeads
      attend(
        task, rows: first..<first + config.attention.numHeads, keyCount: token, isFirst: false,
        scratch)
    }
  }

  /// Packs up to `keysPerPack` keys.
  private func pack(_ keys: Range<Int>, _ scratch: UnsafeMutableRawPointer) {
    let block = Int(kernel.key_block)
    let blockBytes = Int(kernel.packed_block_bytes(config.latentDims))
    for begin in stride(from: keys.lowerBound, to: keys.upperBound, by: block) {
      let end = min(begin + block, keys.upperBound)
      source.gather(
        begin..<end, latents: LatentGather.Rows(out: scratch, stride: keyDim),
        rope: LatentGather.Rows(out: scratch + rank * config.type.bytes, stride: keyDim))
      var args = mla_pack_args(
        dims: config.latentDims, k: scratch, v: scratch, k_stride: Int64(keyDim),
        v_stride: Int64(keyDim), num_keys: Int64(end - begin), format: config.type.rawValue,
        packed: scratch
          + (self.scratch.packedOffset + (begin - keys.lowerBound) / block * blockBytes),
        next_k: nil, next_v: nil)
      kernel.pack(&args)
    }
  }

  /// Adds the first `keyCount` packed keys to the partial results of some rows.
  private func attend(
    _ task: AbsorbedSchedule.Task, rows: Range<Int>, keyCount: Int, isFirst: Bool,
    _ scratch: UnsafeMutableRawPointer
  ) {
    let more = (scratch + self.scratch.partialOffset).assumingMemoryBound(to: Float.self)
    let q = queries(task.tile.place.token, head: 0)
    for begin in stride(from: rows.lowerBound, to: rows.upperBound, by: Int(kernel.query_tile)) {
      let count = min(Int(kernel.query_tile), rows.upperBound - begin)
      let sum = partialRows(task.tile, range: task.range) + begin * rowFloats
      var args = mla_attend_args(
        dims: config.latentDims, q: q + begin * keyDim * config.type.bytes,
        q_stride: Int64(keyDim), num_queries: Int64(count),
        packed: scratch + self.scratch.packedOffset, key_begin: 0, key_end: Int64(keyCount),
        causal_offset: Int64(unmasked), scale: Float(config.attention.scale),
        format: config.type.rawValue, out_format: Int32(MLA_FORMAT_PARTIAL), out_multiplier: 1,
        out: isFirst ? sum : more, out_stride: Int64(rowFloats), lse: nil,
        scratch: scratch + self.scratch.kernelOffset, next_q: nil)
      kernel.attend(&args)
      if isFirst { continue }
      var adding = mla_combine_args()
      adding.num_rows = Int64(count)
      adding.v_head_dim = Int64(rank)
      (adding.sum, adding.row_stride) = (sum, Int64(rowFloats))
      (adding.added, adding.num_added) = (UnsafePointer(more), 1)
      source.table.combine(adding)
    }
  }

  // MARK: Results to values

  private func finish(
    _ tiles: Tiles, head: Int, scratch rows: UnsafeMutableRawPointer
  ) {
    var count = 0
    for tile in tiles {
      combineRanges(of: tile, head: head, into: rows + count * rank * config.type.bytes)
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

  /// One head's results of all of a tile's keys, and its lse.
  private func combineRanges(
    of tile: AbsorbedSchedule.Tile, head: Int, into out: UnsafeMutableRawPointer
  ) {
    let sum = partialRows(tile, range: 0) + head * rowFloats
    let tokenFloats = config.attention.numHeads * rowFloats
    let rangeFloats = tile.tokens.count * tokenFloats
    let args = mla_combine_args(
      num_rows: Int64(tile.tokens.count), v_head_dim: Int64(rank), sum: sum,
      row_stride: Int64(tokenFloats), added: sum + rangeFloats,
      added_stride: Int64(rangeFloats), num_added: Int64(tile.ranges - 1),
      out_format: config.type.rawValue, out_multiplier: 1, out: out, out_stride: Int64(rank),
      lse: source.arguments.lse?.lse(tile.tokens.lowerBound, head: head))
    source.table.combine(args)
  }

  // MARK: Places

  /// A tile's results of one range, for each token those of all heads.
  private func partialRows(_ tile: AbsorbedSchedule.Tile, range: Int)
    -> UnsafeMutablePointer<Float>
  {
    let rows = range * tile.tokens.count * config.attention.numHeads
    return partials + (tile.place.partial + rows) * rowFloats
  }

  /// A row of the wave's queries.
  private func queries(_ token: Int, head: Int) -> UnsafeMutableRawPointer {
    start + token * schedule.shape.queryBytes + head * keyDim * config.type.bytes
  }

  private func scratch(of worker: Int) -> UnsafeMutableRawPointer {
    memory.scratch.of(worker, start)
  }

  private var config: LayerConfig { keys.config }
  private var kernel: mla_attention_kernel { keys.attention }
  private var source: LatentGather { keys.source }
  private var nope: Int { config.attention.qkNopeHeadDim }
  private var rope: Int { config.attention.qkRopeHeadDim }
  private var vDim: Int { config.attention.vHeadDim }
  private var rank: Int { config.attention.kvLoraRank }
  private var keyDim: Int { schedule.shape.keyDim }
  /// Of a row of partial results.
  private var rowFloats: Int { schedule.shape.partialFloats }
  /// Elements from a token's queries to the next one's, of the same head.
  private var queryStride: Int { config.attention.numHeads * keyDim }
}
