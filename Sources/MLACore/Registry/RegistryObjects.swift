import CMLAPrefill

// What is below the registry is handed the implementation that stands behind a name.

extension Registry {
  public func makeBackend(_ name: String, _ config: UnsafePointer<mla_backend_config>?)
    throws(MLAError) -> BackendObject
  {
    let config = try BackendConfig(config)
    return try BackendObject(
      name: name, config: config,
      implementation(of: name, ignoringOverride: config.ignoresOverride))
  }

  public func makeLayer(_ config: UnsafePointer<mla_layer_config>?) throws(MLAError) -> MLALayer {
    let (config, weights) = try LayerConfig.read(config)
    let name =
      if let backend = config.backend { backend } else {
        try selector.select(
          SelectorConfig(dtype: config.type, dimensions: MLADimensions(config.attention)))
      }
    return try MLALayer(config, weights, backend: name, implementation(of: name))
  }
}

extension MLADimensions {
  fileprivate init(_ config: BackendConfig) {
    self.init(
      Int32(config.qkNopeHeadDim), Int32(config.qkRopeHeadDim), Int32(config.vHeadDim))
  }
}
