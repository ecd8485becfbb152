import CMLAPrefill

/// One of the library's own backends on CUDA tensors: its contract decides what it takes, the
/// device's kernels, or cuDNN's, carry out. A launch needs no memory but the caller's and
/// nothing prepared on the device.
final class CUDABackend: OwnBackend, @unchecked Sendable {
  private let contract: any NativeContract
  private let config: BackendConfig
  private let device: CUDADevice
  private let attention: CUDAAttention

  /// - Throws: where the backend is not one for CUDA, or the device cannot be had.
  init(_ backend: BuiltInBackend, _ config: BackendConfig) throws(MLAError) {
    try backend.requireCUDA(config)
    contract = backend.makeContract(config)
    self.config = config
    device = try CUDA.device(config.device.id, field: "config.device_id")
    attention = try CUDAAttention(device, config)
    if contract.warmsUp { try warmUp() }
  }

  /// What has been made stays the device's, so that a clone is as warm as this.
  private init(_ other: CUDABackend) {
    (contract, config) = (other.contract, other.config)
    (device, attention) = (other.device, other.attention)
  }

  func clone() throws(MLAError) -> any MLAPrefillBackend { CUDABackend(self) }

  func warmUp() throws(MLAError) { try CuDNNWarmUp.run(config, device) }

  func prepareMetadata(_ metadata: PrefillMetadata, _ raw: UnsafePointer<mla_prefill_metadata>)
    throws(MLAError) -> PreparedBatch
  {
    try contract.check(metadata)
    let batch = try PreparedBatch(metadata)
    try Shortage.check()
    return batch
  }

  func runPrefillNewTokens(
    _ batch: PreparedBatch, _ arguments: RunArguments, _ raw: UnsafePointer<mla_new_tokens_args>
  ) throws(MLAError) {
    let rows = batch.metadata.queryStartLoc
    guard rows.rowCount > 0 || !contract.answersEmptyBatches else {
      return try attention.runWithoutKeys(arguments)
    }
    try attention.run(rows.selfSpans, arguments)
  }

  func runPrefillContextChunk(
    _ batch: PreparedBatch, _ chunk: ContextChunk, _ arguments: RunArguments,
    _ raw: UnsafePointer<mla_context_chunk_args>
  ) throws(MLAError) {
    try contract.check(chunk)
    try attention.run(chunk.spans, arguments)
  }

  func workspaceSize(_ batch: PreparedBatch) -> Int {
    batch.runs.reduce(0) { most, run in
      let spans =
        switch run {
        case .newTokens: batch.metadata.queryStartLoc.selfSpans
        case .chunk(let index): batch.metadata.chunks[index].spans
        }
      return max(most, attention.workspaceSize(CuDNNAttention.Sizes(spans, lseHeadStride: 0)))
    }
  }
}

extension BuiltInBackend {
  /// For what is made for a CUDA device.
  func requireCUDA(_ config: BackendConfig) throws(MLAError) {
    guard runsOnCUDA else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_HARDWARE,
        "config.device_type = \(config.device.type): backend \(name) does not run on CUDA devices")
    }
  }
}
