import CMLAPrefill

/// What a `mla_backend *` points to: checks what every backend would have to
/// check, keeps the batch, and hands on.
public final class BackendObject: @unchecked Sendable {
  public let name: String
  /// `name`, NUL-terminated, for as long as the object lives.
  public let cName: UnsafePointer<CChar>
  let config: BackendConfig
  private let backend: any MLAPrefillBackend
  private let batch = Guarded<PreparedBatch?>(nil)

  convenience init(name: String, config: BackendConfig, _ implementation: Implementation)
    throws(MLAError)
  {
    let backend: any MLAPrefillBackend =
      switch implementation {
      case .builtIn(let builtIn):
        config.device.isCUDA
          ? try CUDABackend(builtIn, config)
          : try NativeBackend(contract: builtIn.makeContract(config), config: config)
      case .registered(let registered):
        try ForeignBackend(registered, name: name, config: config)
      }
    self.init(name: name, config: config, backend: backend)
  }

  private init(name: String, config: BackendConfig, backend: any MLAPrefillBackend) {
    self.name = name
    self.config = config
    self.backend = backend
    cName = copyCString(name)
  }

  deinit { cName.deallocate() }

  public func clone() throws(MLAError) -> BackendObject {
    BackendObject(name: name, config: config, backend: try backend.clone())
  }

  public func prepareMetadata(_ pointer: UnsafePointer<mla_prefill_metadata>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "metadata")
    let metadata = try PrefillMetadata(raw)
    try config.device.check(
      copy: raw.device_query_start_loc, "metadata.device_query_start_loc")
    try BatchSize.check(
      metadata.queryStartLoc, config, requestsField: "metadata.num_requests",
      rowsField: "metadata.query_start_loc")
    for (i, chunk) in metadata.chunks.enumerated() { try checkSize(chunk, "metadata.chunks[\(i)]") }
    let prepared = try withUnsafePointer(to: raw) { raw throws(MLAError) in
      try backend.prepareMetadata(metadata, raw)
    }
    // What the old batch held goes after the lock: a run may be its last user.
    let displaced = batch.withLock { batch in
      let displaced = batch
      batch = prepared
      return displaced
    }
    _ = consume displaced
  }

  public func runPrefillNewTokens(_ pointer: UnsafePointer<mla_new_tokens_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args")
    let batch = try preparedBatch()
    let rows = batch.metadata.queryStartLoc
    let arguments = try RunArguments(
      raw, config: config, queries: rows, queriesField: "query_start_loc", keys: rows,
      keysField: "query_start_loc", isContextChunk: false)
    if let scale = arguments.outputScale, !backend.supportsQuantOutput(arguments.out.type) {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "output_scale = \(scale.value): backend \(name) writes no quantized output, "
          + "see mla_supports_quant_output")
    }
    note(arguments, requests: rows.requestCount)
    try withUnsafePointer(to: raw) { raw throws(MLAError) in
      try backend.runPrefillNewTokens(batch, arguments, raw)
    }
  }

  public func runPrefillContextChunk(_ pointer: UnsafePointer<mla_context_chunk_args>?)
    throws(MLAError)
  {
    let raw = try readStruct(pointer, name: "args")
    let batch = try preparedBatch()
    let chunk = try ContextChunk(raw.chunk, name: "chunk", announced: batch.metadata.chunks)
    try checkSize(chunk, "chunk")
    let announced = batch.metadata.chunks.count
    guard chunk.index < announced else {
      throw .invalid(
        "chunk.index", chunk.index, "must be -1 or one of the \(announced) chunks of the metadata")
    }
    let arguments = try RunArguments(
      mla_new_tokens_args(
        struct_size: 0, reserved: 0, q: raw.q, k: raw.k, v: raw.v, out: raw.out, lse: raw.lse,
        output_scale: nil, workspace: raw.workspace, workspace_size: raw.workspace_size,
        stream: raw.stream),
      config: config, queries: chunk.queryStartLoc, queriesField: "chunk.query_start_loc",
      keys: chunk.cuSeqLens, keysField: "chunk.cu_seq_lens", isContextChunk: true)
    try config.device.check(copy: raw.device_query_start_loc, "device_query_start_loc")
    try config.device.check(copy: raw.device_cu_seq_lens, "device_cu_seq_lens")
    note(arguments, requests: chunk.queryStartLoc.requestCount)
    try withUnsafePointer(to: raw) { raw throws(MLAError) in
      try backend.runPrefillContextChunk(batch, chunk, arguments, raw)
    }
  }

  private func note(_ arguments: RunArguments, requests: Int) {
    CallRecord.note {
      $0.note(arguments.q, on: config.device, requests: requests)
      $0.keys = Int64(arguments.k.shape[0])
      $0.v_head_dim = Int64(config.vHeadDim)
      $0.backend = cName
    }
  }

  public func warmUp() throws(MLAError) { try backend.warmUp() }

  public func supportsOut() -> Bool { backend.supportsOut() }

  public func supportsQuantOutput(_ dtype: Int32) throws(MLAError) -> Bool {
    backend.supportsQuantOutput(try ElementType(dtype, field: "dtype"))
  }

  public func workspaceSize() throws(MLAError) -> Int64 {
    Int64(try backend.workspaceSize(preparedBatch()))
  }

  private func checkSize(_ chunk: ContextChunk, _ name: String) throws(MLAError) {
    try BatchSize.check(
      chunk.queryStartLoc, config, requestsField: "\(name).num_requests",
      rowsField: "\(name).query_start_loc")
  }

  private func preparedBatch() throws(MLAError) -> PreparedBatch {
    guard let prepared = batch.withLock({ $0 }) else {
      throw .invalid("backend", name, "mla_prepare_metadata must be called before")
    }
    return prepared
  }
}
