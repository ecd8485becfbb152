import CMLAPrefill
import MLAKernelABI

/// What a `mla_layer *` points to: from latents and a paged cache to the output,
/// without K and V as whole tensors. Never changes.
public final class MLALayer: Sendable {
  private let config: LayerConfig
  private let path: Path
  private let table: KernelTable
  private let weights: LayerWeights

  /// How keys and values reach the attention.
  private enum Path: Sendable {
    /// Block by block, packed for the library's kernels.
    case fused(SplitRule)
    /// As whole rows of a bounded number of tokens, to a registered backend.
    case registered(RegisteredLayer)
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
      switch implementation {
      case .builtIn(let backend): .fused(backend.makeContract(config.attention).splitRule)
      case .registered(let backend):
        .registered(try RegisteredLayer(backend, name: name, config))
      }
    table = KernelTables.table(cappedAt: config.attention.maxISA)
    let mayAbsorb =
      switch path {
      case .fused: config.algorithm != .upProjected
      case .registered: false
      }
    self.weights = try LayerWeights(weights, config, table, forQueries: mayAbsorb)
  }

  public func forward(_ pointer: UnsafePointer<mla_layer_forward_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args")
    let arguments = try LayerArguments(raw, config)
    let keys = LatentKeys(
      source: LatentGather(arguments: arguments, config: config, table: table),
      weights: weights, config: config, attention: table.attention(for: config.type),
      projection: table.projection(for: config.type))
    switch path {
    case .fused(let split): try forward(arguments, keys, split)
    case .registered(let backend): try backend.forward(arguments, keys, table)
    }
  }

  private func forward(_ arguments: LayerArguments, _ keys: LatentKeys, _ split: SplitRule)
    throws(MLAError)
  {
    let plan = try LayerPlan(arguments.batch, config, split: split, table)
    let waves = try plan.absorbed.map { part throws(MLAError) in
      try SharedKeySchedule.Waves(part.schedule)
    }
    try withMemory(
      of: plan.bytes, in: arguments.workspace, query: "mla_layer_workspace_size"
    ) { start in
      if let part = plan.upProjected {
        AttentionRun(
          schedule: part.schedule, kernel: keys.attention, table: table,
          dims: config.attention.kernelDims, scale: Float(config.attention.scale),
          q: TensorRows(arguments.q), keys: keys, out: TensorRows(arguments.out),
          outMultiplier: arguments.outMultiplier, lse: arguments.lse.map(TensorRows.init(lse:)),
          memory: part.memory, start: start
        ).execute()
      }
      if let part = plan.absorbed, let waves {
        AbsorbedRun(part, keys, waves: waves, start: start).execute()
      }
    }
  }

  public func workspaceSize(_ pointer: UnsafePointer<mla_layer_forward_args>?) throws(MLAError)
    -> Int64
  {
    let raw = try readStruct(pointer, name: "args")
    let batch = try LayerBatch(raw, config.attention)
    switch path {
    case .fused(let split):
      return Int64(try LayerPlan(batch, config, split: split, table).bytes)
    case .registered(let backend):
      return Int64(try backend.workspaceBytes(batch, quantizes: raw.output_scale != nil, table))
    }
  }
}
