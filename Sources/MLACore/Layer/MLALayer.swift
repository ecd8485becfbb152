import CMLAPrefill
import MLAKernelABI

/// What a `mla_layer *` points to: from latents and a paged cache to the output,
/// without K and V as whole tensors. Never changes.
public final class MLALayer: Sendable {
  private let config: LayerConfig
  private let split: SplitRule
  private let table: KernelTablePointer
  private let weights: LayerWeights

  public init(_ pointer: UnsafePointer<mla_layer_config>?) throws(MLAError) {
    let (config, weights) = try LayerConfig.read(pointer)
    self.config = config
    split = try Self.backend(config).makeContract(config.attention).splitRule
    table = KernelTablePointer(KernelTables.table(cappedAt: config.attention.maxISA))
    self.weights = try LayerWeights(weights, config, table.pointer)
  }

  public func forward(_ pointer: UnsafePointer<mla_layer_forward_args>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "args", minimumSize: argsFirstVersionSize)
    let arguments = try LayerArguments(raw, config)
    let plan = try LayerPlan(arguments.batch, config, split: split, table.pointer)
    let kernel = table.pointer.pointee.kernel(for: config.type)
    let keys = LatentKeys(
      source: LatentGather(
        arguments: arguments, config: config, convert: table.pointer.pointee.convert),
      weights: weights, config: config, attention: kernel,
      projection: table.pointer.pointee.projection(for: config.type))
    try plan.memory.withStart(in: arguments.workspace, query: "mla_layer_workspace_size") {
      start throws(MLAError) in
      AttentionRun(
        schedule: plan.schedule, kernel: kernel, combine: table.pointer.pointee.combine,
        dims: config.attention.kernelDims, scale: Float(config.attention.scale), q: arguments.q,
        keys: keys, out: arguments.out, lse: arguments.lse, memory: plan.memory, start: start
      ).execute()
    }
  }

  public func workspaceSize(_ pointer: UnsafePointer<mla_layer_forward_args>?) throws(MLAError)
    -> Int64
  {
    let raw = try readStruct(pointer, name: "args", minimumSize: argsFirstVersionSize)
    let plan = try LayerPlan(try LayerBatch(raw), config, split: split, table.pointer)
    return Int64(plan.memory.bytes)
  }

  /// The backend whose contract the layer follows.
  private static func backend(_ config: LayerConfig) throws(MLAError) -> BuiltInBackend {
    let dims = MLADimensions(
      Int32(config.attention.qkNopeHeadDim), Int32(config.attention.qkRopeHeadDim),
      Int32(config.attention.vHeadDim))
    let name =
      if let backend = config.backend {
        backend
      } else {
        try Selector.current().select(SelectorConfig(dtype: config.type, dimensions: dims))
      }
    guard case .builtIn(let backend) = try Registry.shared.implementation(of: name) else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "config.backend = \(name): a registered implementation stands behind it, and a layer "
          + "runs the library's own only")
    }
    return backend
  }
}

/// Tables are never written once they are built.
private struct KernelTablePointer: @unchecked Sendable {
  let pointer: UnsafePointer<mla_kernel_table>

  init(_ pointer: UnsafePointer<mla_kernel_table>) { self.pointer = pointer }
}

private let argsFirstVersionSize = 120
