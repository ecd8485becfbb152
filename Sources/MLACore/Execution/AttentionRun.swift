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

/// Carries out a schedule: hands each task's rows to the kernel, first unit by
/// unit, then wave by wave and phase by phase.
struct AttentionRun<Keys: KeySource> {
  let schedule: TileSchedule
  let kernel: mla_attention_kernel
  let table: KernelTable
  let dims: mla_kernel_dims
  let scale: Float
  let q: TensorView
  let keys: Keys
  let out: TensorView
  /// 1 but for an fp8 out.
  let outMultiplier: Float
  let lse: TensorView?
  let memory: AttentionMemory
  let start: UnsafeMutableRawPointer

  func execute() {
    parallel(schedule.unitGroups.count) { group, worker in
      let units = schedule.unitGroups[group]
      var unit = schedule.units[units.lowerBound]
      for following in units.dropFirst() {
        let next = schedule.units[following]
        work(on: unit, before: next, worker: worker)
        unit = next
      }
      work(on: unit, before: nil, worker: worker)
    }
    let room = Room(packed: start, partials: start + memory.partialsOffset)
    for wave in schedule.waves {
      for turn in 0..<wave.turns { work(on: wave, turn, room) }
    }
  }

  private func work(on wave: TileSchedule.Wave, _ turn: Int, _ room: Room) {
    parallel(wave.packCount(inTurn: turn)) { task, worker in
      pack(schedule.packTask(task, in: wave, turn: turn), before: nil, room, worker: worker)
    }
    parallel(wave.taskCount(inTurn: turn)) { task, worker in
      attend(schedule.attendTask(task, in: wave, turn: turn), before: nil, room, worker: worker)
    }
    if wave.partialCount > 0 {
      parallel(wave.tileCount) { task, _ in
        merge(schedule.combineTask(task, in: wave, turn: turn), room)
      }
    }
  }

  /// A key range at a time, so that its packed keys stay in the cache.
  ///
  /// - Parameter next: what the same thread works on next.
  private func work(
    on unit: TileSchedule.Segment, before next: TileSchedule.Segment?, worker: Int
  ) {
    let nextKeys = next.flatMap {
      $0.span.keyCount > 0 ? RowPlace(row: $0.span.keyBegin, head: $0.heads.lowerBound) : nil
    }
    let nextQueries = next.map { RowPlace(row: $0.span.queryBegin, head: $0.heads.lowerBound) }
    let room = Room(
      packed: start + worker * memory.unitBytes,
      partials: start + (memory.partialsOffset + worker * memory.unitPartialBytes))
    for turn in 0..<unit.turns {
      for block in unit.blocks(inTurn: turn) {
        let isLast = block == unit.blocksPerHead - 1
        pack(
          schedule.packTask(block, of: unit), before: isLast ? nextKeys : nil, room,
          worker: worker)
      }
      // Upwards: a tile's queries are fetched while the one before is packed.
      for tile in (0..<unit.tileCount).reversed() {
        let isLast = tile == 0 && turn == unit.turns - 1
        attend(
          schedule.attendTask(tile, turn: turn, of: unit), before: isLast ? nextQueries : nil,
          room, worker: worker)
        if turn > 0 { merge(schedule.combineTask(tile, turn: turn, of: unit), room) }
      }
    }
  }

  private func parallel(_ count: Int, _ body: (_ task: Int, _ worker: Int) -> Void) {
    ParallelLoop.runTasks(count, workers: memory.scratch.workers, kernel, body)
  }

  /// Where tasks find each other's packed blocks and partial results.
  private struct Room {
    let packed: UnsafeMutableRawPointer
    let partials: UnsafeMutableRawPointer
  }

  private func pack(_ task: PackTask, before next: RowPlace?, _ room: Room, worker: Int) {
    keys.pack(task, before: next, into: { packedBlock($0, room) }, scratch: scratch(of: worker))
  }

  private func packedBlock(_ index: Int, _ room: Room) -> UnsafeMutableRawPointer {
    room.packed + index * schedule.shape.packedBlockBytes
  }

  private func scratch(of worker: Int) -> UnsafeMutableRawPointer {
    memory.scratch.of(worker, start)
  }

  private func attend(
    _ task: AttendTask?, before next: RowPlace?, _ room: Room, worker: Int
  ) {
    guard let task else { return }
    var args = mla_attend_args(
      dims: dims, q: q.row(task.queries.lowerBound, head: task.head),
      q_stride: Int64(q.strides[0]), num_queries: Int64(task.queries.count),
      packed: packedBlock(task.firstBlock, room),
      key_begin: Int64(task.keys.lowerBound), key_end: Int64(task.keys.upperBound),
      causal_offset: Int64(task.causalOffset), scale: scale, format: q.type.rawValue,
      out_format: out.type.rawValue, out_multiplier: outMultiplier,
      out: out.row(task.queries.lowerBound, head: task.head), out_stride: Int64(out.strides[0]),
      lse: lseRow(task.queries.lowerBound, head: task.head),
      scratch: scratch(of: worker),
      next_q: next.map { UnsafeRawPointer(q.row($0.row, head: $0.head)) })
    if let index = task.partial {
      let partial = partialOut(index, room)
      args.out = UnsafeMutableRawPointer(partial)
      args.out_format = Int32(MLA_FORMAT_FLOAT32)
      args.out_stride = dims.v_head_dim
      args.lse = partialLSE(partial)
    }
    kernel.attend(&args)
  }

  private func merge(_ task: CombineTask, _ room: Room) {
    let sum = partialOut(task.sum, room)
    withUnsafeTemporaryAllocation(of: mla_partial.self, capacity: 2) { sides in
      sides[0] = side(sum)
      for index in task.added {
        sides[1] = side(partialOut(index, room))
        var args = mla_combine_args(
          num_rows: Int64(task.queries.count), v_head_dim: dims.v_head_dim,
          partials: sides.baseAddress, num_partials: 2,
          format: Int32(MLA_FORMAT_FLOAT32), out_format: Int32(MLA_FORMAT_FLOAT32),
          out_multiplier: 1, out: UnsafeMutableRawPointer(sum), out_stride: dims.v_head_dim,
          lse: partialLSE(sum), lse_stride: 1)
        if task.isLast, index + 1 == task.added.upperBound {
          args.out_format = out.type.rawValue
          args.out_multiplier = outMultiplier
          args.out = out.row(task.queries.lowerBound, head: task.head)
          args.out_stride = Int64(out.strides[0])
          args.lse = lseRow(task.queries.lowerBound, head: task.head)
        }
        table.combine(args)
      }
    }
  }

  private func side(_ out: UnsafeMutablePointer<Float>) -> mla_partial {
    mla_partial(
      out: UnsafeRawPointer(out), out_stride: dims.v_head_dim,
      lse: UnsafePointer(partialLSE(out)), lse_stride: 1)
  }

  private func lseRow(_ token: Int, head: Int) -> UnsafeMutablePointer<Float>? {
    lse?.lse(token, head: head)
  }

  private func partialOut(_ index: Int, _ room: Room) -> UnsafeMutablePointer<Float> {
    room.partials.assumingMemoryBound(to: Float.self) + index * schedule.shape.partialFloats
  }

  private func partialLSE(_ out: UnsafeMutablePointer<Float>) -> UnsafeMutablePointer<Float> {
    out + schedule.shape.queryTile * schedule.shape.vHeadDim
  }
}
