import CMLAPrefill

/// The arguments of a forward call, checked against each other and the layer.
struct LayerArguments: Sendable {
  let batch: LayerBatch
  let q: TensorView
  let latents: TensorView
  /// nil where keys have no rotary part.
  let rope: TensorView?
  /// nil where nobody's context is looked at.
  let cache: PagedCache?
  let out: TensorView
  /// nil: out is not quantized.
  let outputScale: OutputScale?
  let lse: TensorView?
  let workspace: Workspace?

  /// 1 but for an fp8 out.
  var outMultiplier: Float { outputScale?.multiplier ?? 1 }

  init(_ raw: mla_layer_forward_args, _ config: LayerConfig) throws(MLAError) {
    try checkReserved("args", raw.reserved)
    batch = try LayerBatch(raw, config.attention)
    q = try TensorView(raw.q, name: "q", rank: 3)
    try q.requireType(config.type, "the layer's dtype")
    latents = try TensorView(raw.kv_c_normed, name: "kv_c_normed", rank: 2)
    rope =
      raw.k_pe == nil && config.attention.qkRopeHeadDim == 0
      ? nil : try TensorView(raw.k_pe, name: "k_pe", rank: 2)
    out = try TensorView(raw.out, name: "out", rank: 3)
    outputScale = try OutputScale(raw.output_scale, for: out)
    lse = raw.lse == nil ? nil : try TensorView(raw.lse, name: "lse", rank: 2)
    workspace = try Workspace(raw.workspace, size: raw.workspace_size)
    try checkNoStream(raw.stream)
    let cacheTensor = try Self.cacheTensor(raw, config, batch)
    cache =
      if let cacheTensor, batch.readsContext {
        try PagedCache(cacheTensor, raw, batch)
      } else {
        nil
      }
    try checkTensors(config)
    try checkOverlaps(cacheTensor)
  }

  /// nil where the caller has none and needs none.
  private static func cacheTensor(
    _ raw: mla_layer_forward_args, _ config: LayerConfig, _ batch: LayerBatch
  ) throws(MLAError) -> TensorView? {
    guard raw.kv_cache != nil || batch.readsContext else { return nil }
    let tensor = try TensorView(raw.kv_cache, name: "kv_cache", rank: 3)
    switch config.cacheFormat {
    case .plain(let type, _):
      try tensor.requireType(type, "the layer's cache_dtype")
      let width = config.attention.kvLoraRank + config.attention.qkRopeHeadDim
      try tensor.requireShape(
        (tensor.shape[0], ""), (tensor.shape[1], ""), (width, "kv_lora_rank + qk_rope_head_dim"))
    case .fp8DsMLA: try DsMLASlot.check(tensor)
    }
    guard tensor.shape[1] > 0 else {
      throw .invalid("kv_cache.shape[1]", 0, "must be at least 1")
    }
    return tensor
  }

  private func checkTensors(_ config: LayerConfig) throws(MLAError) {
    let tokens = (q.shape[0], "the rows of q")
    let heads = (config.attention.numHeads, "the layer's num_heads")
    try q.requireShape(
      tokens, heads, (config.attention.qkHeadDim, "qk_nope_head_dim + qk_rope_head_dim"))
    try latents.requireShape(tokens, (config.attention.kvLoraRank, "the layer's kv_lora_rank"))
    try rope?.requireShape(
      tokens, (config.attention.qkRopeHeadDim, "the layer's qk_rope_head_dim"))
    try out.requireShape(tokens, heads, (config.attention.vHeadDim, "the layer's v_head_dim"))
    try lse?.requireShape(heads, tokens)
    for tensor in [latents, rope].compactMap({ $0 }) {
      try tensor.requireType(config.type, "the layer's dtype")
    }
    if outputScale == nil { try out.requireAttentionType() }
    try lse?.requireType(.float32, "whatever q's")
    let rows = batch.queryStartLoc
    guard rows.rowCount <= q.shape[0] else {
      throw .invalid(
        "query_start_loc[\(rows.requestCount)]", rows.rowCount,
        "must not be beyond the \(q.shape[0]) rows of q")
    }
  }

  private func checkOverlaps(_ cache: TensorView?) throws(MLAError) {
    let inputs = [q, latents, rope, cache].compactMap { $0 }
    for output in [out, lse].compactMap({ $0 }) {
      try output.requireDistinctElements()
      for input in inputs { try output.requireNoOverlap(with: input) }
    }
    try lse?.requireNoOverlap(with: out)
    try workspace?.requireNoOverlap(with: inputs + [out, lse].compactMap { $0 })
  }
}
