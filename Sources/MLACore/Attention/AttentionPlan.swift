import MLAKernelABI

/// How a stateless call is carried out: what its requests and shape alone decide, and the
/// number of threads. Requests of one form are worked on after those of the other, in the same
/// memory.
final class AttentionPlan: Sendable {
  struct Groups: Sendable {
    let schedule: SharedKeySchedule
    let memory: SharedKeyMemory
    let scratch: SharedKeyScratch
  }

  let key: AttentionKey
  /// nil where no request takes the form.
  let byHead: RunPlan?
  let byGroup: Groups?

  var threads: Int {
    max(byHead?.memory.scratch.workers ?? 0, byGroup?.memory.scratch.workers ?? 0)
  }

  /// As a call is told of: 1 by head, 2 by group.
  var forms: Int32 { (byHead == nil ? 0 : 1) + (byGroup == nil ? 0 : 2) }

  var bytes: Int { max(byHead?.memory.bytes ?? 0, byGroup?.memory.bytes ?? 0) }

  init(_ key: AttentionKey) throws(MLAError) {
    self.key = key
    let (shape, limit) = (key.shape, key.mostThreads)
    let kernel = KernelTables.table(cappedAt: shape.maxISA).attention(for: shape.type)
    let (dims, group) = (shape.kernelDims, shape.headsPerKeyHead)
    func spans(_ form: AttentionForm) throws(MLAError) -> FixedArray<RequestSpan> {
      try FixedArray(
        key.requests.lazy.filter {
          $0.queryCount > 0 && AttentionForm.of($0, headsPerKeyHead: group) == form
        }, for: "requests of a batch")
    }
    let (alone, together) = (try spans(.byHead), try spans(.byGroup))
    byHead =
      alone.isEmpty
      ? nil
      : try RunPlan(
        alone, numHeads: shape.numKeyHeads, headsPerKeyHead: group, kernel, dims,
        split: .byCost(numHeads: shape.numHeads), atMost: limit)
    byGroup = together.isEmpty ? nil : try Self.groups(together, shape, kernel, atMost: limit)
  }

  private static func groups(
    _ spans: FixedArray<RequestSpan>, _ shape: AttentionShape, _ kernel: mla_attention_kernel,
    atMost limit: Int
  ) throws(MLAError) -> Groups {
    let (dims, group) = (shape.kernelDims, shape.headsPerKeyHead)
    let threads = TileCost.threads(
      spans, numHeads: shape.numKeyHeads, headsPerKeyHead: group, atMost: limit)
    let keyShape = SharedKeyShape(
      numHeads: group, numKeyHeads: shape.numKeyHeads, vHeadDim: shape.vHeadDim, queryBytes: 0,
      keysPerPack: kernel.keysPerPack(dims))
    let schedule = try SharedKeySchedule(
      spans, shape: keyShape, waveBytes: TileSchedule.waveBytes(threads: threads))
    let rows = SharedKeySchedule.mostTokensPerTile(numHeads: group) * group
    let scratch = SharedKeyScratch(
      kernel, dims, keyShape, rowBytes: rows * shape.qkHeadDim * shape.type.bytes)
    return Groups(
      schedule: schedule,
      memory: SharedKeyMemory(schedule, scratchBytes: scratch.bytes, threads: threads),
      scratch: scratch)
  }
}
