import MLAKernelABI

/// Carries out the requests whose groups of heads are worked on together.
struct GroupRun: SharedKeyRun {
  let schedule: SharedKeySchedule
  let memory: SharedKeyMemory
  private let q: TensorRows
  private let out: TensorRows
  private let outMultiplier: Float
  private let lse: TensorRows?
  let start: UnsafeMutableRawPointer
  let waves: SharedKeySchedule.Waves
  var attention: SharedKeyAttention<TensorKeys>

  init(
    _ plan: AttentionPlan.Groups, _ arguments: AttentionArguments,
    waves: SharedKeySchedule.Waves, _ kernel: mla_attention_kernel, _ table: KernelTable,
    start: UnsafeMutableRawPointer
  ) {
    (schedule, memory) = (plan.schedule, plan.memory)
    (self.waves, self.start) = (waves, start)
    (q, out) = (TensorRows(arguments.q), TensorRows(arguments.out))
    lse = arguments.lse.map(TensorRows.init(lse:))
    outMultiplier = arguments.outputScale?.multiplier ?? 1
    let dims = arguments.shape.kernelDims
    attention = SharedKeyAttention(
      shape: schedule.shape, kernel: kernel, table: table, dims: dims,
      scale: Float(arguments.scale), type: arguments.q.type,
      keys: TensorKeys(
        k: TensorRows(arguments.k), v: TensorRows(arguments.v), kernel: kernel, dims: dims),
      scratch: plan.scratch, partials: start.assumingMemoryBound(to: Float.self))
  }

  func work(on wave: SharedKeySchedule.Wave) {
    parallel(wave.end.task) { index, worker in
      let (task, scratch) = (wave.task(index), self.scratch(of: worker))
      attention.attend(task, queries(of: task.tile, scratch), scratch: scratch)
    }
    parallel(wave.groups.count * schedule.shape.numHeads) { index, _ in
      let (head, group) = index.quotientAndRemainder(dividingBy: wave.groups.count)
      for tile in wave.tiles[wave.groups[group]] { finish(tile, head: head) }
    }
  }

  /// In place where one stride leads from each row to the next.
  private func queries(of tile: SharedKeySchedule.Tile, _ scratch: UnsafeMutableRawPointer)
    -> SharedKeyAttention<TensorKeys>.Queries
  {
    let heads = schedule.shape.numHeads
    let first = q[tile.span.queryBegin, head: tile.keyHead * heads]
    if tile.span.queryCount == 1 || q.stride == heads * q.headStride {
      return .init(start: first, stride: q.headStride)
    }
    let dim = Int(attention.dims.qk_head_dim)
    for head in 0..<heads {
      attention.table.convert(
        mla_convert_args(
          rows: first + head * q.headStride * q.type.bytes, row_stride: Int64(q.stride),
          num_rows: Int64(tile.span.queryCount), row_dim: Int64(dim), format: q.type.rawValue,
          out_format: q.type.rawValue, multiplier: 1, out: scratch + head * dim * q.type.bytes,
          out_stride: Int64(heads * dim)))
    }
    return .init(start: scratch, stride: dim)
  }

  /// - Parameter head: of the group.
  private func finish(_ tile: SharedKeySchedule.Tile, head: Int) {
    let token = tile.span.queryBegin
    let place = tile.keyHead * schedule.shape.numHeads + head
    attention.combine(
      tile, head: head, into: out[token, head: place], outStride: out.stride, out.type,
      times: outMultiplier,
      lse: lse.map { $0[token, head: place].assumingMemoryBound(to: Float.self) })
  }
}
