import CMLAPrefill

// What is below the registry is handed the implementation that stands behind a name.

extension Registry {
  public func makeBackend(_ name: String, _ config: UnsafePointer<mla_backend_config>?)
    throws(MLAError) -> BackendObject
  {
    let config = try BackendConfig(config)
    let implementation = try implementation(of: name, ignoringOverride: config.ignoresOverride)
    if case .builtIn(let backend) = implementation { try backend.checkCUDA(config) }
    return try BackendObject(name: name, config: config, implementation)
  }

  public func makeLayer(_ config: UnsafePointer<mla_layer_config>?) throws(MLAError) -> MLALayer {
    let (config, weights) = try LayerConfig.read(config)
    var choice = SelectorConfig(dtype: config.type, dimensions: MLADimensions(config.attention))
    let device = config.attention.device
    if device.isCUDA {
      choice.platform = .cuda
      choice.capability = try CUDA.device(device.id, field: "config.device_id").capability
    }
    let name = if let backend = config.backend { backend } else { try selector.select(choice) }
    let implementation = try implementation(of: name)
    if case .builtIn(let backend) = implementation { try backend.checkCUDA(config.attention) }
    return try MLALayer(config, weights, backend: name, implementation)
  }
}

extension BuiltInBackend {
  /// vLLM's rules for the device, the very one, hold for whoever makes an object without
  /// asking the selector.
  fileprivate func checkCUDA(_ config: BackendConfig) throws(MLAError) {
    guard config.device.isCUDA, runsOnCUDA else { return }
    let device = try CUDA.device(config.device.id, field: "config.device_id")
    // Of the dtype nothing is known before a run.
    let reasons = gpuReasons(
      SelectorConfig(
        dtype: .bfloat16, dimensions: MLADimensions(config), platform: .cuda,
        capability: device.capability), isProvided: true)
    guard reasons.isEmpty else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "MLA prefill backend \(name) is not valid on CUDA device \(config.device.id): "
          + reasons.joined(separator: ", "))
    }
  }
}

extension MLADimensions {
  fileprivate init(_ config: BackendConfig) {
    self.init(
      Int32(config.qkNopeHeadDim), Int32(config.qkRopeHeadDim), Int32(config.vHeadDim))
  }
}
