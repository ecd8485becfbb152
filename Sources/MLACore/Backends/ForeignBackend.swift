import CMLAPrefill

/// A backend that somebody registered, run through its vtable, which has what it must.
final class ForeignBackend: MLAPrefillBackend, @unchecked Sendable {
  private let registered: RegisteredBackend
  private let name: String
  private let config: BackendConfig
  private let instance: UnsafeMutableRawPointer?

  private var vtable: mla_backend_vtable { registered.vtable }

  init(_ registered: RegisteredBackend, name: String, config: BackendConfig) throws(MLAError) {
    var raw = mla_backend_config(
      struct_size: mla_backend_config.size,
      num_heads: Int32(config.numHeads), scale: config.scale,
      kv_lora_rank: Int32(config.kvLoraRank), qk_nope_head_dim: Int32(config.qkNopeHeadDim),
      qk_rope_head_dim: Int32(config.qkRopeHeadDim), v_head_dim: Int32(config.vHeadDim),
      max_isa: config.maxISA,
      ignore_override: 0)
    var instance: UnsafeMutableRawPointer?
    let create = registered.vtable.create.unsafelyUnwrapped
    try Self.check(name, "create") { create(registered.vtable.context, &raw, &instance) }
    self.registered = registered
    self.name = name
    self.config = config
    self.instance = instance
  }

  deinit { Arithmetic.callers { vtable.destroy?(vtable.context, instance) } }

  func clone() throws(MLAError) -> any MLAPrefillBackend {
    try ForeignBackend(registered, name: name, config: config)
  }

  func prepareMetadata(_ metadata: PrefillMetadata, _ raw: UnsafePointer<mla_prefill_metadata>)
    throws(MLAError) -> PreparedBatch
  {
    // Nothing may fail once the other side has the new batch.
    let batch = try PreparedBatch(metadata)
    try Shortage.check()
    if let prepare = vtable.prepare_metadata {
      try Self.check(name, "prepare_metadata") { prepare(vtable.context, instance, raw) }
    }
    return batch
  }

  func runPrefillNewTokens(
    _ batch: PreparedBatch, _ arguments: RunArguments, _ raw: UnsafePointer<mla_new_tokens_args>
  ) throws(MLAError) {
    let run = vtable.run_prefill_new_tokens.unsafelyUnwrapped
    try Self.check(name, "run_prefill_new_tokens") { run(vtable.context, instance, raw) }
  }

  func runPrefillContextChunk(
    _ batch: PreparedBatch, _ chunk: ContextChunk, _ arguments: RunArguments,
    _ raw: UnsafePointer<mla_context_chunk_args>
  ) throws(MLAError) {
    let run = vtable.run_prefill_context_chunk.unsafelyUnwrapped
    try Self.check(name, "run_prefill_context_chunk") { run(vtable.context, instance, raw) }
  }

  func supportsOut() -> Bool {
    guard let supports = vtable.supports_out else { return true }
    return LastError.said { supports(vtable.context, instance) != 0 }.result
  }

  func supportsQuantOutput(_ type: ElementType) -> Bool {
    guard let supports = vtable.supports_quant_output else { return false }
    return LastError.said { supports(vtable.context, instance, type.rawValue) != 0 }.result
  }

  func workspaceSize(_ batch: PreparedBatch) throws(MLAError) -> Int {
    guard let ask = vtable.workspace_size else { return 0 }
    let (said, size) = LastError.said { ask(vtable.context, instance) }
    guard size >= 0 else {
      throw MLAError(
        size == -Int64(MLA_ERROR_OUT_OF_MEMORY) ? MLA_ERROR_OUT_OF_MEMORY : MLA_ERROR_INTERNAL,
        said.isEmpty
          ? "backend \(name): workspace_size returned \(size), must not be negative" : said)
    }
    return Int(size)
  }

  /// A failing call keeps the message that the backend set; one that set none
  /// gets one here.
  private static func check(_ name: String, _ function: String, _ call: () -> mla_status)
    throws(MLAError)
  {
    let (said, status) = LastError.said(by: call)
    guard status != MLA_OK else { return }
    let known = (Int32(MLA_OK)...Int32(MLA_ERROR_INTERNAL)).contains(status)
    throw MLAError(
      known ? Int(status) : MLA_ERROR_INTERNAL,
      said.isEmpty ? "backend \(name): \(function) returned status \(status)" : said)
  }
}
