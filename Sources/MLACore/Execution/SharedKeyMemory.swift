import MLAKernelABI

/// What attention of heads that share keys keeps beside its tensors.
///
///     queries   a wave's, where the schedule's shape has any
///     partials  [tile][range][token][head] rows of partial results, behind the wave's
///               queries
///     scratch   one per worker, see `SharedKeyScratch`
struct SharedKeyMemory {
  let scratch: WorkerScratch

  /// - Parameter threads: most workers.
  init(_ schedule: SharedKeySchedule, scratchBytes: Int, threads: Int) {
    scratch = WorkerScratch(
      workers: max(1, min(threads, schedule.mostTasks)), bytes: scratchBytes,
      at: alignedUp(schedule.waveBytes) + memoryAlignment)
  }

  /// Where a wave's partial results begin.
  func partialsOffset(_ wave: SharedKeySchedule.Wave, _ shape: SharedKeyShape) -> Int {
    alignedUp(wave.end.token * shape.queryBytes)
  }

  var bytes: Int { scratch.end + memoryAlignment }
}

/// What a worker keeps while it attends:
///
///     rows     what its source of keys needs, or queries that it has gathered
///     packed   [keys_per_pack / key_block] blocks
///     partial  query_tile rows
///     kernel   the attention kernel's own
struct SharedKeyScratch {
  let packedOffset: Int
  let partialOffset: Int
  let kernelOffset: Int
  let bytes: Int

  init(
    _ kernel: mla_attention_kernel, _ dims: mla_kernel_dims, _ shape: SharedKeyShape,
    rowBytes: Int
  ) {
    packedOffset = alignedUp(rowBytes)
    partialOffset =
      packedOffset
      + shape.keysPerPack / Int(kernel.key_block) * Int(kernel.packed_block_bytes(dims))
    kernelOffset = partialOffset + alignedUp(Int(kernel.query_tile) * shape.partialFloats * 4)
    bytes = kernelOffset + Int(kernel.scratch_bytes(dims))
  }
}
