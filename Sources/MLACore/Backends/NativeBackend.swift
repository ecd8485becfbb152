import CMLAPrefill
import MLAKernelABI

/// One of the library's own backends on CPU tensors: its contract decides, the
/// schedule cuts, `AttentionRun` carries out.
final class NativeBackend: MLAPrefillBackend, @unchecked Sendable {
  private let contract: any NativeContract
  private let config: BackendConfig
  private let table: UnsafePointer<mla_kernel_table>

  init(contract: any NativeContract, config: BackendConfig) throws(MLAError) {
    self.contract = contract
    self.config = config
    table = KernelTables.table(cappedAt: config.maxISA)
    guard contract.warmsUp else { return }
    try NativeWarmUp.run(config) { rows, arguments throws(MLAError) in
      try run(
        plan(
          rows.selfSpans, isCausal: true, arguments.q.type, atMost: HostSettings.threads,
          numHeads: arguments.q.shape[1]), arguments)
    }
  }

  func clone() throws(MLAError) -> any MLAPrefillBackend {
    try NativeBackend(contract: contract, config: config)
  }

  func supportsOut() -> Bool { true }

  func supportsQuantOutput(_ type: ElementType) -> Bool { type == .float8E4M3 }

  func prepareMetadata(_ metadata: PrefillMetadata, _ raw: UnsafePointer<mla_prefill_metadata>)
    throws(MLAError) -> PreparedBatch
  {
    try contract.check(metadata)
    let batch = PreparedBatch(metadata)
    if contract.plansAhead { _ = plans(of: batch) }
    try Shortage.check()
    return batch
  }

  func runPrefillNewTokens(
    _ batch: PreparedBatch, _ arguments: RunArguments, _ raw: UnsafePointer<mla_new_tokens_args>
  ) throws(MLAError) {
    guard batch.metadata.queryStartLoc.rowCount > 0 || !contract.answersEmptyBatches else {
      return KeylessResult.write(to: arguments.out, lse: arguments.lse)
    }
    try run(planNewTokens(of: batch, arguments.q.type), arguments)
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
        ? plan(chunk, of: batch, type)
        : plan(chunk.spans, isCausal: false, type, atMost: HostSettings.threads), arguments)
  }

  func workspaceSize(_ batch: PreparedBatch) throws(MLAError) -> Int {
    plans(of: batch).map(\.memory.bytes).max() ?? 0
  }

  // MARK: Plans

  /// Of all runs that the batch announces.
  private func plans(of batch: PreparedBatch) -> [RunPlan] {
    ElementType.allCases.filter(\.isAttentionType).flatMap { type in
      [planNewTokens(of: batch, type)]
        + batch.metadata.chunks.map { plan($0, of: batch, type) }
    }
  }

  private func planNewTokens(of batch: PreparedBatch, _ type: ElementType) -> RunPlan {
    batch.plans.plan(of: .newTokens, type) { threads in
      plan(batch.metadata.queryStartLoc.selfSpans, isCausal: true, type, atMost: threads)
    }
  }

  /// - Parameter chunk: as the batch announces it.
  private func plan(_ chunk: ContextChunk, of batch: PreparedBatch, _ type: ElementType)
    -> RunPlan
  {
    batch.plans.plan(of: .chunk(chunk.index), type) { threads in
      plan(chunk.spans, isCausal: false, type, atMost: threads)
    }
  }

  /// - Parameter numHeads: the configuration's, but for a warm-up.
  private func plan(
    _ spans: [RequestSpan], isCausal: Bool, _ type: ElementType, atMost limit: Int,
    numHeads: Int? = nil
  ) -> RunPlan {
    let kernel = table.pointee.kernel(for: type)
    let numHeads = numHeads ?? config.numHeads
    let threads = TileCost.threads(spans, numHeads: numHeads, isCausal: isCausal, atMost: limit)
    let schedule = TileSchedule(
      spans, numHeads: numHeads, isCausal: isCausal, shape: kernel.shape(dims),
      split: contract.splitRule, threads: threads,
      waveBytes: TileSchedule.waveBytes(threads: threads))
    return RunPlan(
      kernel: kernel, schedule: schedule, memory: AttentionMemory(schedule, kernel, dims),
      mostThreads: limit)
  }

  private func run(_ plan: RunPlan, _ arguments: RunArguments) throws(MLAError) {
    try plan.memory.withStart(in: arguments.workspace) { start throws(MLAError) in
      AttentionRun(
        schedule: plan.schedule, kernel: plan.kernel, combine: table.pointee.combine, dims: dims,
        scale: Float(config.scale), q: arguments.q,
        keys: TensorKeys(k: arguments.k, v: arguments.v, kernel: plan.kernel, dims: dims),
        out: arguments.out, outMultiplier: arguments.outputScale?.multiplier ?? 1,
        lse: arguments.lse, memory: plan.memory, start: start
      ).execute()
    }
  }

  private var dims: mla_kernel_dims { config.kernelDims }
}

extension mla_kernel_table {
  func kernel(for type: ElementType) -> mla_attention_kernel {
    switch type {
    case .bfloat16: bf16
    case .float16: fp16
    default: fp32
    }
  }

  func projection(for type: ElementType) -> mla_projection_kernel {
    switch type {
    case .bfloat16: bf16_projection
    case .float16: fp16_projection
    default: fp32_projection
    }
  }
}

extension BackendConfig {
  var kernelDims: mla_kernel_dims {
    mla_kernel_dims(qk_head_dim: Int64(qkHeadDim), v_head_dim: Int64(vHeadDim))
  }
}

extension mla_attention_kernel {
  func shape(_ dims: mla_kernel_dims) -> TileShape {
    TileShape(
      queryTile: Int(query_tile), keyBlock: Int(key_block),
      packedBlockBytes: Int(packed_block_bytes(dims)), vHeadDim: Int(dims.v_head_dim))
  }
}
