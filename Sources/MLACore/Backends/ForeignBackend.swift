import CMLAPrefill

/// A backend that somebody registered, run through its vtable, which has what it must.
final class ForeignBackend: MLAPrefillBackend, @unchecked Sendable {
  private let registered: RegisteredBackend
  private let name: String
  private let config: BackendConfig
  private let instance: UnsafeMutableRawPointer?

  private var vtable: mla_backend_vtable { registered.vtable }

  init(_ registered: RegisteredBackend, name: String, config: BackendConfig) throws(MLAError) {
    try Self.check(name, registered, supports: config.device)
    var raw = mla_backend_config(
      struct_size: mla_backend_config.size,
      num_heads: Int32(config.numHeads), scale: config.scale,
      kv_lora_rank: Int32(config.kvLoraRank), qk_nope_head_dim: Int32(config.qkNopeHeadDim),
      qk_rope_head_dim: Int32(config.qkRopeHeadDim), v_head_dim: Int32(config.vHeadDim),
      max_isa: config.maxISA,
      ignore_override: 0, device_type: config.device.type, device_id: config.device.id)
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

  /// Its own affair.
  func warmUp() throws(MLAError) {}

  func prepareMetadata(_ metadata: PrefillMetadata, _ raw: UnsafePointer<mla_prefill_metadata>)
    throws(MLAError) -> PreparedBatch
  {
    // Nothing may fail once the other side has the new batch.
    let batch = try PreparedBatch(metadata)
    try Shortage.check()
    if let prepare = vtable.prepare_metadata {
      // Not the caller's, whose header may be older than the backend's or newer than ours.
      var own = raw.pointee
      own.struct_size = mla_prefill_metadata.size
      try Self.check(name, "prepare_metadata") { prepare(vtable.context, instance, &own) }
    }
    return batch
  }

  func runPrefillNewTokens(
    _ batch: PreparedBatch, _ arguments: RunArguments, _ raw: UnsafePointer<mla_new_tokens_args>
  ) throws(MLAError) {
    CallRecord.note(.registered)
    let run = vtable.run_prefill_new_tokens.unsafelyUnwrapped
    var args = raw.pointee
    args.struct_size = mla_new_tokens_args.size
    try Self.check(name, "run_prefill_new_tokens") { run(vtable.context, instance, &args) }
  }

  func runPrefillContextChunk(
    _ batch: PreparedBatch, _ chunk: ContextChunk, _ arguments: RunArguments,
    _ raw: UnsafePointer<mla_context_chunk_args>
  ) throws(MLAError) {
    CallRecord.note(.registered)
    let run = vtable.run_prefill_context_chunk.unsafelyUnwrapped
    var args = raw.pointee
    args.struct_size = mla_context_chunk_args.size
    try Self.check(name, "run_prefill_context_chunk") { run(vtable.context, instance, &args) }
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

  /// One that was made before there was the question knows of the CPU alone.
  private static func check(
    _ name: String, _ registered: RegisteredBackend, supports device: Device
  ) throws(MLAError) {
    if device == .cpu { return }
    let vtable = registered.vtable
    let (said, supports) = LastError.said {
      vtable.supports_device?(vtable.context, device.type, device.id) ?? 0
    }
    guard supports == 0 else { return }
    throw MLAError(
      MLA_ERROR_UNSUPPORTED_HARDWARE,
      said.isEmpty
        ? "config.device_type = \(device.type), device_id = \(device.id): backend \(name) does "
          + "not run on that device" : said)
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
