import MLAKernelABI

/// What a run needs to know beside its tensors.
final class RunPlan: @unchecked Sendable {
  let kernel: mla_attention_kernel
  let schedule: TileSchedule
  let memory: AttentionMemory
  /// The number of threads that were to be had when it was made.
  let mostThreads: Int

  init(
    kernel: mla_attention_kernel, schedule: TileSchedule, memory: AttentionMemory,
    mostThreads: Int
  ) {
    self.kernel = kernel
    self.schedule = schedule
    self.memory = memory
    self.mostThreads = mostThreads
  }

  /// - Parameters:
  ///   - numHeads: of keys.
  ///   - limit: how many threads there are.
  convenience init(
    _ spans: some RandomAccessCollection<RequestSpan>, numHeads: Int, headsPerKeyHead: Int = 1,
    _ kernel: mla_attention_kernel, _ dims: mla_kernel_dims, split: SplitRule, atMost limit: Int
  ) throws(MLAError) {
    let threads = TileCost.threads(
      spans, numHeads: numHeads, headsPerKeyHead: headsPerKeyHead, atMost: limit)
    let schedule = try TileSchedule(
      spans, numHeads: numHeads, headsPerKeyHead: headsPerKeyHead, shape: kernel.shape(dims),
      split: split, threads: threads, waveBytes: TileSchedule.waveBytes(threads: threads))
    Verbose.explain {
      "tiles,requests:\(spans.count) heads:\(numHeads) threads:\(threads) of \(limit) "
        + "units:\(schedule.units.count) waves:\(schedule.waves.count) ranges:\(split)"
    }
    self.init(
      kernel: kernel, schedule: schedule, memory: AttentionMemory(schedule, kernel, dims),
      mostThreads: limit)
  }
}
