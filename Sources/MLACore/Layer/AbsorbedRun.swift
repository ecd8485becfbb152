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
    let partial = Partial(self, task.tile, range: task.range)
    let more = (scratch + self.scratch.partialOffset).assumingMemoryBound(to: Float.self)
    let q = queries(task.tile.place.token, head: 0)
    for begin in stride(from: rows.lowerBound, to: rows.upperBound, by: Int(kernel.query_tile)) {
      let count = min(Int(kernel.query_tile), rows.upperBound - begin)
      let (out, lse) = (partial.out + begin * rank, partial.lse + begin)
      let (moreOut, moreLSE) = isFirst ? (out, lse) : (more, more + count * rank)
      var args = mla_attend_args(
        dims: config.latentDims, q: q + begin * keyDim * config.type.bytes,
        q_stride: Int64(keyDim), num_queries: Int64(count),
        packed: scratch + self.scratch.packedOffset, key_begin: 0, key_end: Int64(keyCount),
        causal_offset: Int64(unmasked), scale: Float(config.attention.scale),
        format: config.type.rawValue, out_format: Int32(MLA_FORMAT_FLOAT32), out_multiplier: 1,
        out: moreOut, out_stride: Int64(rank), lse: moreLSE,
        scratch: scratch + self.scratch.kernelOffset, next_q: nil)
      kernel.attend(&args)
      if !isFirst {
        add(moreOut, moreLSE, rows: count, to: out, lse)
      }
    }
  }

  private func add(
    _ moreOut: UnsafeMutablePointer<Float>, _ moreLSE: UnsafeMutablePointer<Float>, rows: Int,
    to out: UnsafeMutablePointer<Float>, _ lse: UnsafeMutablePointer<Float>
  ) {
    let stride = Int64(rank)
    withUnsafeTemporaryAllocation(of: mla_partial.self, capacity: 2) { partials in
      partials[0] = mla_partial(out: out, out_stride: stride, lse: lse, lse_stride: 1)
      partials[1] = mla_partial(out: moreOut, out_stride: stride, lse: moreLSE, lse_stride: 1)
      source.table.combine(
        mla_combine_args(
          num_rows: Int64(rows), v_head_dim: stride, partials: partials.baseAddress,
          num_partials: 2, format: Int32(MLA_FORMAT_FLOAT32),
          out_format: Int32(MLA_FORMAT_FLOAT32), out_multiplier: 1, out: out, out_stride: stride,
          lse: lse, lse_stride: 1))
    }
  }

  // MARK: Results to values

  private func finish(
    _ tiles: Tiles, head: Int, scratch rows: UnsafeMutableRawPointer
  ) {
    var count = 0
    for tile in tiles {
      combineRanges(
        of: tile, head: head, into: rows + count * rank * config.type.bytes,
        sides: rows + scratch.sidesOffset)
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
    of tile: AbsorbedSchedule.Tile, head: Int, into out: UnsafeMutableRawPointer,
    sides: UnsafeMutableRawPointer
  ) {
    let heads = config.attention.numHeads
    let partials = sides.bindMemory(to: mla_partial.self, capacity: tile.ranges)
    for range in 0..<tile.ranges {
      let partial = Partial(self, tile, range: range)
      partials[range] = mla_partial(
        out: partial.out + head * rank, out_stride: Int64(heads * rank),
        lse: partial.lse + head, lse_stride: Int64(heads))
    }
    source.table.combine(
      mla_combine_args(
        num_rows: Int64(tile.tokens.count), v_head_dim: Int64(rank),
        partials: partials, num_partials: Int64(tile.ranges),
        format: Int32(MLA_FORMAT_FLOAT32), out_format: config.type.rawValue, out_multiplier: 1,
        out: out, out_stride: Int64(rank),
        lse: source.arguments.lse?.lse(tile.tokens.lowerBound, head: head), lse_stride: 1))
  }

  // MARK: Places

  /// Where a tile's results of one range lie.
  private struct Partial {
    let out: UnsafeMutablePointer<Float>
    let lse: UnsafeMutablePointer<Float>

    init(_ run: AbsorbedRun, _ tile: AbsorbedSchedule.Tile, range: Int) {
      let rows = tile.tokens.count * run.config.attention.numHeads
      let first = tile.place.partial + range * rows
      out = run.partials + first * run.schedule.shape.partialFloats
      lse = out + rows * run.rank
    }
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
  /// Elements from a token's queries to the next one's, of the same head.
  private var queryStride: Int { config.attention.numHeads * keyDim }
}
