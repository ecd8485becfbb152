import CMLAPrefill
import MLAKernelABI

/// What a `mla_layer *` points to: from latents and a paged cache to the output. Never
/// changes.
public final class MLALayer: Sendable {
  private let config: LayerConfig
  private let path: Path
  /// The backend's name, NUL-terminated, for as long as the layer lives.
  private nonisolated(unsafe) let backend: UnsafePointer<CChar>

  /// How keys and values reach the attention.
  private enum Path: Sendable {
    /// Block by block, packed for the library's kernels.
    case fused(FusedLayer)
    /// As whole rows of a bounded number of tokens, to a registered backend.
    case registered(RegisteredLayer, CPULayerPlace)
    /// As whole rows of some heads.
    case cuda(CUDALayer)
    case registeredOnCUDA(RegisteredLayer, CUDALayerPlace)
  }

  /// - Parameters:
  ///   - name: of the backend, in messages.
  ///   - implementation: what stands behind the name.
  init(
    _ config: LayerConfig, _ weights: KVBProj, backend name: String,
    _ implementation: Implementation
  ) throws(MLAError) {
    self.config = config
    path =
      config.attention.device.isCUDA
      ? try Self.cudaPath(config, weights, backend: name, implementation)
      : try Self.cpuPath(config, weights, backend: name, implementation)
    // Last: what throws would leave it behind.
    backend = copyCString(name)
  }

  deinit { backend.deallocate() }

  private static func cpuPath(
    _ config: LayerConfig, _ weights: KVBProj, backend name: String,
    _ implementation: Implementation
  ) throws(MLAError) -> Path {
    let table = KernelTables.table(cappedAt: config.attention.maxISA)
    func place(forQueries: Bool) throws(MLAError) -> CPULayerPlace {
      CPULayerPlace(
        config: config, table: table,
        weights: try LayerWeights(weights, config, table, forQueries: forQueries))
    }
    switch implementation {
    case .builtIn(let backend):
      return .fused(
        FusedLayer(
          place: try place(forQueries: config.algorithm != .upProjected),
          split: backend.makeContract(config.attention).splitRule))
    case .registered(let backend):
      let backend = try RegisteredLayer(backend, name: name, config)
      return .registered(backend, try place(forQueries: false))
    }
  }

  private static func cudaPath(
    _ config: LayerConfig, _ weights: KVBProj, backend name: String,
    _ implementation: Implementation
  ) throws(MLAError) -> Path {
    switch implementation {
    case .builtIn(let backend):
      try backend.requireCUDA(config.attention)
      return .cuda(try CUDALayer(CUDALayerPlace(config, weights)))
    case .registered(let backend):
      let backend = try RegisteredLayer(backend, name: name, config)
      return .registeredOnCUDA(backend, try CUDALayerPlace(config, weights))
    }
  }

  public func forward(_ pointer: UnsafePointer<mla_layer_forward_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args")
    try requireOwn(raw)
    let arguments = try LayerArguments(raw, config)
    // Afterwards: a registered backend's runs note what they are of.
    defer { note(arguments) }
    switch path {
    case .fused(let layer): try layer.forward(arguments)
    case .registered(let backend, let place): try backend.forward(arguments, on: place)
    case .cuda(let layer): try layer.forward(arguments)
    case .registeredOnCUDA(let backend, let place): try backend.forward(arguments, on: place)
    }
  }

  /// What only the library's own attention on the CPU does.
  private func requireOwn(_ raw: mla_layer_forward_args) throws(MLAError) {
    func refuse(_ field: String, _ rule: String) -> MLAError {
      MLAError(MLA_ERROR_UNSUPPORTED_CONFIGURATION, "\(field): \(rule)")
    }
    if raw.topk_indices == nil && raw.new_tokens_cached == 0 { return }
    let field =
      raw.topk_indices == nil
      ? "new_tokens_cached = \(raw.new_tokens_cached)" : "topk_indices = not NULL"
    guard case .fused = path else {
      throw refuse(field, "is for layers on the CPU whose backend is one of the library's own")
    }
    guard raw.topk_indices == nil || config.algorithm != .upProjected else {
      throw refuse(
        field, "the layer's algorithm must not be MLA_LAYER_ALGORITHM_UP_PROJECTED")
    }
  }

  private func note(_ arguments: LayerArguments) {
    CallRecord.note {
      $0.note(
        arguments.q, on: config.attention.device,
        requests: arguments.batch.queryStartLoc.requestCount)
      $0.keys = 0
      $0.v_head_dim = Int64(config.attention.vHeadDim)
      $0.backend = backend
    }
  }

  public func workspaceSize(_ pointer: UnsafePointer<mla_layer_forward_args>?) throws(MLAError)
    -> Int64
  {
    let raw = try readStruct(pointer, name: "args")
    try requireOwn(raw)
    var batch = try LayerBatch(raw, config.attention)
    _ = try batch.select(raw)
    let quantizes = raw.output_scale != nil
    switch path {
    case .fused(let layer): return Int64(try layer.workspaceBytes(batch))
    case .registered(let backend, let place):
      return Int64(try backend.workspaceBytes(batch, quantizes: quantizes, on: place))
    case .cuda(let layer): return Int64(try layer.workspaceBytes(batch))
    case .registeredOnCUDA(let backend, let place):
      return Int64(try backend.workspaceBytes(batch, quantizes: quantizes, on: place))
    }
  }
}
