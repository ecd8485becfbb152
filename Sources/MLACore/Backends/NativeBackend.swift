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
      try runNewTokens(rows, planned: nil, arguments)
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
    guard contract.plansAhead else { return PreparedBatch(metadata) }
    return PlannedBatch(metadata, shapes: distinctShapes, threads: HostSettings.threads) {
      schedule($0, isCausal: $1, $2)
    }
  }

  func runPrefillNewTokens(
    _ batch: PreparedBatch, _ arguments: RunArguments, _ raw: UnsafePointer<mla_new_tokens_args>
  ) throws(MLAError) {
    try runNewTokens(batch.metadata.queryStartLoc, planned: plan(of: batch)?.newTokens, arguments)
  }

  private func runNewTokens(
    _ rows: RowOffsets, planned: [TileSchedule]?, _ arguments: RunArguments
  ) throws(MLAError) {
    let kernel = table.pointee.kernel(for: arguments.q.type)
    let shape = kernel.shape(dims)
    let schedule =
      planned?.first { $0.shape == shape }
      ?? schedule(
        rows.selfSpans, isCausal: true, shape, numHeads: arguments.q.shape[1])
    try run(schedule, kernel, arguments)
  }

  func runPrefillContextChunk(
    _ batch: PreparedBatch, _ chunk: ContextChunk, _ arguments: RunArguments,
    _ raw: UnsafePointer<mla_context_chunk_args>
  ) throws(MLAError) {
    try contract.check(chunk)
    let kernel = table.pointee.kernel(for: arguments.q.type)
    let shape = kernel.shape(dims)
    let planned = plan(of: batch)?.schedule(of: chunk, shape)
    let schedule = planned ?? self.schedule(chunk.spans, isCausal: false, shape)
    try run(schedule, kernel, arguments)
  }

  func workspaceSize(_ batch: PreparedBatch) throws(MLAError) -> Int {
    var bytes = 0
    for type in ElementType.allCases where type.isAttentionType {
      let kernel = table.pointee.kernel(for: type)
      let shape = kernel.shape(dims)
      let newTokens = schedule(batch.metadata.queryStartLoc.selfSpans, isCausal: true, shape)
      let chunks = batch.metadata.chunks.map { schedule($0.spans, isCausal: false, shape) }
      for schedule in [newTokens] + chunks {
        bytes = max(bytes, AttentionMemory(schedule, kernel, dims).bytes)
      }
    }
    return bytes
  }

  /// nil where there is none, or none for as many threads as there are now.
  private func plan(of batch: PreparedBatch) -> PlannedBatch? {
    guard let plan = batch as? PlannedBatch, plan.threads == HostSettings.threads else { return nil }
    return plan
  }

  private var dims: mla_kernel_dims { config.kernelDims }

  private var distinctShapes: [TileShape] {
    var shapes: [TileShape] = []
    for type in ElementType.allCases where type.isAttentionType {
      let shape = table.pointee.kernel(for: type).shape(dims)
      if !shapes.contains(shape) { shapes.append(shape) }
    }
    return shapes
  }

  /// - Parameter numHeads: the configuration's, but for a warm-up.
  private func schedule(
    _ spans: [RequestSpan], isCausal: Bool, _ shape: TileShape, numHeads: Int? = nil
  ) -> TileSchedule {
    let numHeads = numHeads ?? config.numHeads
    let threads = TileCost.threads(
      spans, numHeads: numHeads, isCausal: isCausal, atMost: HostSettings.threads)
    return TileSchedule(
      spans, numHeads: numHeads, isCausal: isCausal, shape: shape, split: contract.splitRule,
      threads: threads, waveBytes: TileSchedule.waveBytes(threads: threads))
  }

  private func run(
    _ schedule: TileSchedule, _ kernel: mla_attention_kernel, _ arguments: RunArguments
  ) throws(MLAError) {
    let memory = AttentionMemory(schedule, kernel, dims)
    try memory.withStart(in: arguments.workspace) { start throws(MLAError) in
      AttentionRun(
        schedule: schedule, kernel: kernel, combine: table.pointee.combine, dims: dims,
        scale: Float(config.scale), q: arguments.q,
        keys: TensorKeys(k: arguments.k, v: arguments.v, kernel: kernel, dims: dims),
        out: arguments.out, outMultiplier: arguments.outputScale?.multiplier ?? 1,
        lse: arguments.lse, memory: memory, start: start
      ).execute()
    }
  }
}

/// The schedules of a batch, built once and shared by its layers and threads.
private final class PlannedBatch: PreparedBatch, @unchecked Sendable {
  /// That the schedules are for.
  let threads: Int
  /// One for each shape that a kernel of the table has.
  let newTokens: [TileSchedule]
  /// Likewise, for each announced chunk.
  private let chunks: [[TileSchedule]]

  init(
    _ metadata: PrefillMetadata, shapes: [TileShape], threads: Int,
    schedule: ([RequestSpan], Bool, TileShape) -> TileSchedule
  ) {
    self.threads = threads
    newTokens = shapes.map { schedule(metadata.queryStartLoc.selfSpans, true, $0) }
    chunks = metadata.chunks.map { chunk in shapes.map { schedule(chunk.spans, false, $0) } }
    super.init(metadata)
  }

  /// nil for a chunk that was not announced as it is now.
  func schedule(of chunk: ContextChunk, _ shape: TileShape) -> TileSchedule? {
    guard chunks.indices.contains(chunk.index) else { return nil }
    let announced = metadata.chunks[chunk.index]
    guard announced.queryStartLoc == chunk.queryStartLoc, announced.cuSeqLens == chunk.cuSeqLens
    else { return nil }
    return chunks[chunk.index].first { $0.shape == shape }
  }
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
