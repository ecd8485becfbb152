import MLAKernelABI

/// What a run keeps beside its tensors; grows with the wave, never with the
/// product of queries and keys.
///
///     packed    the wave's packed keys and values, or each worker's unit's
///     partials  partial results of split requests, queryTile rows each; the wave's,
///               or each worker's unit's
///     scratch   one per worker
struct AttentionMemory {
  /// From one worker's blocks and partial results to the next one's.
  let unitBytes: Int
  let unitPartialBytes: Int
  let partialsOffset: Int
  let scratch: WorkerScratch

  /// - Parameters:
  ///   - packScratchBytes: what a worker needs while it packs; it attends in the
  ///     same memory.
  init(
    _ schedule: TileSchedule, _ kernel: mla_attention_kernel, _ dims: mla_kernel_dims,
    packScratchBytes: Int = 0
  ) {
    let (shape, waves) = (schedule.shape, schedule.waves)
    let mostTasks = max(waves.most.block, waves.most.task)
    let workers = max(1, min(schedule.threads, max(mostTasks, schedule.unitGroups.count)))
    unitBytes = shape.packedBytes(schedule.units)
    unitPartialBytes = shape.partialBytes(schedule.units)
    let unitWorkers = min(workers, schedule.unitGroups.count)
    partialsOffset = alignedUp(max(shape.packedBytes(waves), unitWorkers * unitBytes))
    let partialBytes = max(shape.partialBytes(waves), unitWorkers * unitPartialBytes)
    scratch = WorkerScratch(
      workers: workers, bytes: max(Int(kernel.scratch_bytes(dims)), packScratchBytes),
      at: partialsOffset + alignedUp(partialBytes))
  }

  /// Room for aligning the start included: a caller's workspace need not be.
  var bytes: Int { scratch.end + memoryAlignment }

  func withStart(
    in workspace: Workspace?, query: String = "mla_workspace_size",
    _ body: (UnsafeMutableRawPointer) throws(MLAError) -> Void
  ) throws(MLAError) {
    try withMemory(of: bytes, in: workspace, query: query, body)
  }
}

/// Runs `body` with the start, aligned, of that many bytes: the caller's if there
/// are any, else the library's. `bytes` has room for aligning.
///
/// - Parameter query: the function that would have said how much is needed.
func withMemory(
  of bytes: Int, in workspace: Workspace?, query: String,
  _ body: (UnsafeMutableRawPointer) throws(MLAError) -> Void
) throws(MLAError) {
  guard let workspace else {
    let own = try ScratchArena.take(bytes: bytes, for: "workspace of a run")
    return try body(own.base)
  }
  try workspace.require(bytes, query: query)
  try body(workspace.start.alignedUp(toMultipleOf: memoryAlignment))
}

/// A cache line, and the widest vector.
let memoryAlignment = 64

func alignedUp(_ bytes: Int) -> Int {
  (bytes + memoryAlignment - 1) / memoryAlignment * memoryAlignment
}
