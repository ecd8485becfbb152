import CMLAPrefill
import MLAKernelABI

/// One of the library's own backends on CPU tensors: its contract decides, the
/// schedule cuts, `AttentionRun` carries out.
final class NativeBackend: OwnBackend, @unchecked Sendable {
  private let contract: any NativeContract
  private let config: BackendConfig
  private let table: KernelTable
  /// Of the run before, which the next batch's will be like: what to plan ahead for.
  private let lastType = Guarded(ElementType.bfloat16)

  init(contract: any NativeContract, config: BackendConfig) throws(MLAError) {
    try config.device.requireCPU("the library's own backends")
    self.contract = contract
    self.config = config
    table = KernelTables.table(cappedAt: config.maxISA)
    if contract.warmsUp { try warmUp() }
  }

  func warmUp() throws(MLAError) {
    try NativeWarmUp.run(config) { rows, arguments throws(MLAError) in
      try run(
        plan(
          rows.selfSpans, arguments.q.type, atMost: HostSettings.threads,
          numHeads: arguments.q.shape[1]), arguments)
    }
  }

  func clone() throws(MLAError) -> any MLAPrefillBackend {
    try NativeBackend(contract: contract, config: config)
  }

  func prepareMetadata(_ metadata: PrefillMetadata, _ raw: UnsafePointer<mla_prefill_metadata>)
    throws(MLAError) -> PreparedBatch
  {
    try contract.check(metadata)
    let batch = try PreparedBatch(metadata)
    if contract.plansAhead {
      let type = lastType.withLock { $0 }
      for run in batch.runs { _ = try plan(run, of: batch, type) }
    }
    try Shortage.check()
    return batch
  }

  func runPrefillNewTokens(
    _ batch: PreparedBatch, _ arguments: RunArguments, _ raw: UnsafePointer<mla_new_tokens_args>
  ) throws(MLAError) {
    guard batch.metadata.queryStartLoc.rowCount > 0 || !contract.answersEmptyBatches else {
      return KeylessResult.write(to: arguments.out, lse: arguments.lse)
    }
    try run(plan(.newTokens, of: batch, arguments.q.type), arguments)
  }

  func runPrefillContextChunk(
    _ batch: PreparedBatch, _ chunk: ContextChunk, _ arguments: RunArguments,
    _ raw: UnsafePointer<mla_context_chunk_args>
  ) throws(MLAError) {
    try contract.check(chunk)
    let isAnnounced =
      batch.metadata.chunks.indices.contains(chunk.index)
      && batch.metadata.chunks[chunk.index] == chunk
    let type = arguments.q.type
    try run(
      isAnnounced
        ? plan(.chunk(chunk.index), of: batch, type)
        : plan(chunk.spans, type, atMost: HostSettings.threads), arguments)
  }

  func workspaceSize(_ batch: PreparedBatch) throws(MLAError) -> Int {
    var most = 0
    for type in ElementType.allCases where type.isAttentionType {
      for run in batch.runs {
        // Nobody says which dtype will be run: what is planned here is not kept.
        let threads = HostSettings.threads
        let plan =
          if let known = batch.plans.known(run, type, threads: threads) {
            known
          } else {
            try makePlan(run, of: batch, type, atMost: threads)
          }
        most = max(most, plan.memory.bytes)
      }
    }
    return most
  }

  // MARK: Plans

  private func plan(_ run: RunPlans.Run, of batch: PreparedBatch, _ type: ElementType)
    throws(MLAError) -> RunPlan
  {
    if contract.plansAhead { lastType.withLock { $0 = type } }
    return try batch.plans.plan(of: run, type) { threads throws(MLAError) in
      try makePlan(run, of: batch, type, atMost: threads)
    }
  }

  private func makePlan(
    _ run: RunPlans.Run, of batch: PreparedBatch, _ type: ElementType, atMost limit: Int
  ) throws(MLAError) -> RunPlan {
    switch run {
    case .newTokens:
      try plan(batch.metadata.queryStartLoc.selfSpans, type, atMost: limit)
    case .chunk(let index):
      try plan(batch.metadata.chunks[index].spans, type, atMost: limit)
    }
  }

  /// - Parameter numHeads: the configuration's, but for a warm-up.
  private func plan(
    _ spans: RequestSpans, _ type: ElementType, atMost limit: Int, numHeads: Int? = nil
  ) throws(MLAError) -> RunPlan {
    try RunPlan(
      spans, numHeads: numHeads ?? config.numHeads, table.attention(for: type), dims,
      split: contract.splitRule, atMost: limit)
  }

  private func run(_ plan: RunPlan, _ arguments: RunArguments) throws(MLAError) {
    CallRecord.note(.cpu(plan.kernel), threads: plan.memory.scratch.workers)
    try plan.memory.withStart(in: arguments.workspace) { start throws(MLAError) in
      AttentionRun(
        schedule: plan.schedule, kernel: plan.kernel, table: table, dims: dims,
        scale: Float(config.scale), q: TensorRows(arguments.q),
        keys: TensorKeys(
          k: TensorRows(arguments.k), v: TensorRows(arguments.v), kernel: plan.kernel, dims: dims),
        out: TensorRows(arguments.out), outMultiplier: arguments.outputScale?.multiplier ?? 1,
        lse: arguments.lse.map(TensorRows.init(lse:)), memory: plan.memory, start: start
      ).execute()
    }
  }

  private var dims: mla_kernel_dims { config.kernelDims }
}

extension BackendConfig {
  var kernelDims: mla_kernel_dims {
    mla_kernel_dims(qk_head_dim: Int64(qkHeadDim), v_head_dim: Int64(vHeadDim))
  }
}
