import MLAKernelABI

/// Where a run's keys and values come from.
protocol KeySource {
  /// Packs one task's blocks.
  ///
  /// - Parameters:
  ///   - next: what the same thread packs next, to be fetched meanwhile; nil: what
  ///     lies behind.
  ///   - block: memory of the packed block of that number.
  ///   - scratch: the worker's own.
  func pack(
    _ task: PackTask, before next: RowPlace?, into block: (Int) -> UnsafeMutableRawPointer,
    scratch: UnsafeMutableRawPointer)
}

/// A row of one head's queries, or of its keys and values.
struct RowPlace {
  let row: Int
  let head: Int
}

/// Carries out a schedule: hands each task's rows to the kernel, the units' first, then
/// the other waves', phase by phase.
struct AttentionRun<Keys: KeySource> {
  let schedule: TileSchedule
  let kernel: mla_attention_kernel
  let table: KernelTable
  let dims: mla_kernel_dims
  let scale: Float
  let q: TensorRows
  let keys: Keys
  let out: TensorRows
  /// 1 but for an fp8 out.
  let outMultiplier: Float
  let lse: TensorRows?
  let memory: AttentionMemory
  let start: UnsafeMutableRawPointer

  func execute() {
    parallel(schedule.unitGroups.count) { group, worker in
      var crew = Crew(
        packed: start + worker * memory.unitBytes,
        partials: start + (memory.partialsOffset + worker * memory.unitPartialBytes),
        worker: worker)
      let units = schedule.unitGroups[group]
      var unit = schedule.units[units.lowerBound]
      for following in units.dropFirst() {
        let next = schedule.units[following]
        let (span, head) = (next.first.request.span, next.first.heads.lowerBound)
        crew.nextKeys = span.keyCount > 0 ? RowPlace(row: span.keyBegin, head: head) : nil
        crew.nextQueries = RowPlace(
          row: span.queryBegin, head: head * schedule.headsPerKeyHead)
        work(on: unit, by: crew)
        unit = next
      }
      (crew.nextKeys, crew.nextQueries) = (nil, nil)
      work(on: unit, by: crew)
    }
    let all = Crew(packed: start, partials: start + memory.partialsOffset)
    for wave in schedule.waves { work(on: wave, by: all) }
  }

  /// Who carries out a wave, and where they find packed blocks and partial results.
  private struct Crew {
    let packed: UnsafeMutableRawPointer
    let partials: UnsafeMutableRawPointer
    /// nil: all of them.
    var worker: Int? = nil
    /// What the same worker packs and attends to next.
    var nextKeys: RowPlace? = nil
    var nextQueries: RowPlace? = nil
  }

  /// A phase of one of a wave's turns.
  private struct Step {
    enum Phase {
      case pack, attend, combine
    }

    let phase: Phase
    let turn: Int
    /// Tasks.
    let count: Int
  }

  private func work(on wave: TileSchedule.Wave, by crew: Crew) {
    for turn in 0..<wave.turns {
      let packs = wave.packCount(inTurn: turn)
      work(on: Step(phase: .pack, turn: turn, count: packs), of: wave, by: crew)
      let tasks = wave.taskCount(inTurn: turn)
      work(on: Step(phase: .attend, turn: turn, count: tasks), of: wave, by: crew)
      if wave.end.partial > 0 {
        work(on: Step(phase: .combine, turn: turn, count: wave.end.tile), of: wave, by: crew)
      }
    }
  }

  private func work(on step: Step, of wave: TileSchedule.Wave, by crew: Crew) {
    guard let worker = crew.worker else { return share(step, of: wave, among: crew) }
    for index in 0..<step.count { work(on: index, step, of: wave, by: crew, worker) }
  }

  /// Apart: what a closure captures is copied, and one worker needs none.
  @inline(never)
  private func share(_ step: Step, of wave: TileSchedule.Wave, among crew: Crew) {
    parallel(step.count) { index, worker in
      work(on: index, step, of: wave, by: crew, worker)
    }
  }

  private func work(
    on index: Int, _ step: Step, of wave: TileSchedule.Wave, by crew: Crew, _ worker: Int
  ) {
    let isLast = index == step.count - 1 && step.turn == wave.turns - 1
    switch step.phase {
    case .pack:
      keys.pack(
        schedule.packTask(index, in: wave, turn: step.turn), before: isLast ? crew.nextKeys : nil,
        into: { packedBlock($0, crew) }, scratch: scratch(of: worker))
    case .attend:
      // Upwards: a tile's queries are fetched while the one before is packed.
      let task = crew.worker == nil ? index : step.count - 1 - index
      attend(
        schedule.attendTask(task, in: wave, turn: step.turn),
        before: isLast ? crew.nextQueries : nil, crew, worker: worker)
    case .combine: combineTile(schedule.combineTask(index, in: wave, turn: step.turn), crew)
    }
  }

  private func parallel(_ count: Int, _ body: (_ task: Int, _ worker: Int) -> Void) {
    ParallelLoop.runTasks(count, workers: memory.scratch.workers, kernel, body)
  }

  private func packedBlock(_ index: Int, _ crew: Crew) -> UnsafeMutableRawPointer {
    crew.packed + index * schedule.shape.packedBlockBytes
  }

  private func scratch(of worker: Int) -> UnsafeMutableRawPointer {
    memory.scratch.of(worker, start)
  }

  private func attend(
    _ task: AttendTask?, before next: RowPlace?, _ crew: Crew, worker: Int
  ) {
    guard let task else { return }
    var args = mla_attend_args(
      dims: dims, q: q[task.queries.lowerBound, head: task.head],
      q_stride: Int64(q.stride), num_queries: Int64(task.queries.count),
      packed: packedBlock(task.firstBlock, crew),
      key_begin: Int64(task.keys.lowerBound), key_end: Int64(task.keys.upperBound),
      causal_offset: Int64(task.causalOffset), scale: scale, format: q.type.rawValue,
      out_format: out.type.rawValue, out_multiplier: outMultiplier,
      out: out[task.queries.lowerBound, head: task.head], out_stride: Int64(out.stride),
      lse: lseRow(task.queries.lowerBound, head: task.head),
      scratch: scratch(of: worker),
      next_q: next.map { UnsafeRawPointer(q[$0.row, head: $0.head]) })
    if let partial = task.partial {
      args.out = UnsafeMutableRawPointer(partialRows(partial, crew))
      args.out_format = Int32(MLA_FORMAT_PARTIAL)
      args.out_stride = partialStride
      args.lse = nil
    }
    kernel.attend(&args)
  }

  private func combineTile(_ task: CombineTask, _ crew: Crew) {
    if task.added.isEmpty { return }
    var args = mla_combine_args(
      num_rows: Int64(task.queries.count), v_head_dim: dims.v_head_dim,
      sum: partialRows(task.sum, crew), row_stride: partialStride,
      added: partialRows(task.added.lowerBound, crew),
      added_stride: Int64(schedule.shape.partialFloats), num_added: Int64(task.added.count),
      out_format: out.type.rawValue, out_multiplier: outMultiplier, out: nil,
      out_stride: Int64(out.stride), lse: nil)
    if task.isLast {
      args.out = out[task.queries.lowerBound, head: task.head]
      args.lse = lseRow(task.queries.lowerBound, head: task.head)
    }
    table.combine(args)
  }

  private func lseRow(_ token: Int, head: Int) -> UnsafeMutablePointer<Float>? {
    lse.map { $0[token, head: head].assumingMemoryBound(to: Float.self) }
  }

  private func partialRows(_ index: Int, _ crew: Crew) -> UnsafeMutablePointer<Float> {
    crew.partials.assumingMemoryBound(to: Float.self) + index * schedule.shape.partialFloats
  }

  private var partialStride: Int64 { Int64(partialRowFloats(Int(dims.v_head_dim))) }
}
