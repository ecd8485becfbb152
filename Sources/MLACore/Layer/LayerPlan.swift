import MLAKernelABI

/// A batch's schedule and memory, within a bound if there is one.
struct LayerPlan {
  let schedule: TileSchedule
  let memory: AttentionMemory

  /// Smaller waves first, fewer threads only where that is not enough: neither
  /// bears on bits.
  init(
    _ batch: LayerBatch, _ config: LayerConfig, split: SplitRule,
    _ table: UnsafePointer<mla_kernel_table>
  ) throws(MLAError) {
    var threads = HostSettings.threads
    var waveBytes = TileSchedule.waveBytes(threads: threads)
    while true {
      let plan = LayerPlan(
        batch, config, split: split, table, waveBytes: waveBytes, threads: threads)
      let excess = plan.memory.bytes - (config.workspaceBound ?? .max)
      if excess <= 0 {
        self = plan
        return
      }
      let packedBytes = plan.schedule.packedBytes
      if waveBytes > smallestWave {
        // A pair of request and head that is larger than a wave has one of its own.
        waveBytes =
          packedBytes > waveBytes ? smallestWave : max(smallestWave, packedBytes - excess)
      } else if threads > 1 {
        threads /= 2
      } else {
        throw .invalid(
          "config.workspace_bound", config.workspaceBound ?? 0,
          "this batch needs \(plan.memory.bytes) bytes: the keys of one request and head must fit")
      }
    }
  }

  private init(
    _ batch: LayerBatch, _ config: LayerConfig, split: SplitRule,
    _ table: UnsafePointer<mla_kernel_table>, waveBytes: Int, threads: Int
  ) {
    let dims = config.attention.kernelDims
    let kernel = table.pointee.kernel(for: config.type)
    let projection = table.pointee.projection(for: config.type)
    schedule = TileSchedule(
      batch.spans, numHeads: config.attention.numHeads, isCausal: true,
      shape: kernel.shape(dims), split: split, waveBytes: waveBytes)
    memory = AttentionMemory(
      schedule, kernel, dims, packScratchBytes: LatentScratch(config, kernel, projection).bytes,
      threads: threads)
  }
}

/// One pair of request and head.
private let smallestWave = 1
