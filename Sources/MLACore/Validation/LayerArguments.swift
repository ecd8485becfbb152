import CMLAPrefill

/// What a forward call reads and writes, on the layer's device.
struct LayerArguments: @unchecked Sendable {
  let batch: LayerBatch
  let q: TensorView
  /// nil where new tokens are no keys, or read from the cache.
  let latents: TensorView?
  /// nil where keys have no rotary part, too.
  let rope: TensorView?
  /// nil where nobody's context is looked at, and on a device.
  let cache: PagedCache?
  /// nil where nobody's context is looked at, and on the CPU.
  let deviceCache: DeviceCache?
  let out: TensorView
  /// nil: out is not quantized.
  let outputScale: OutputScale?
  let lse: TensorView?
  let workspace: Workspace?
  /// The device's; nil: the default one.
  let stream: UnsafeMutableRawPointer?

  /// 1 but for an fp8 out.
  var outMultiplier: Float { outputScale?.multiplier ?? 1 }

  /// The caller's, checked against each other and the layer.
  init(_ raw: mla_layer_forward_args, _ config: LayerConfig) throws(MLAError) {
    var batch = try LayerBatch(raw, config.attention)
    var tensors = try LayerTensors(
      raw, config, readsNewTokens: !batch.contextOnly && !batch.newTokensCached)
    outputScale = try OutputScale(raw.output_scale, for: tensors.out)
    let device = config.attention.device
    tensors.lse = try CallTensor(raw.lse, name: "lse", on: device, rank: 2, mayBeNull: true)
    workspace = try Workspace(raw.workspace, size: raw.workspace_size)
    try device.check(stream: raw.stream)
    stream = raw.stream
    if raw.kv_cache != nil || raw.k_pe_cache != nil || batch.readsCache {
      try tensors.readCache(raw, config)
    }
    if let cache = tensors.cache, batch.readsCache {
      let slots = CacheSlots(cache, config.cacheFormat, rank: config.attention.kvLoraRank)
      let table = try BlockTable(raw, blockCount: slots.blockCount)
      if device == .cpu {
        self.cache = try PagedCache(
          slots, table, batch, starts: raw.context_starts, startsField: "context_starts")
        deviceCache = nil
      } else {
        try Device.requireAligned(raw.block_table, "block_table")
        self.cache = nil
        deviceCache = try DeviceCache(
          slots, table, batch, starts: raw.context_starts, startsField: "context_starts")
      }
    } else {
      (cache, deviceCache) = (nil, nil)
    }
    try tensors.check(config, isQuantized: outputScale != nil)
    try tensors.q.requireRows(of: batch.queryStartLoc, "query_start_loc")
    tensors.selected = try batch.select(raw)
    try tensors.checkOverlaps(workspace)
    self.batch = batch
    (q, latents, rope) = (tensors.q.view, tensors.latents?.view, tensors.rope?.view)
    (out, lse) = (tensors.out.view, tensors.lse?.view)
  }
}

private struct LayerTensors {
  let q: CallTensor
  let latents: CallTensor?
  let rope: CallTensor?
  let out: CallTensor
  var lse: CallTensor?
  /// nil where the caller has none and needs none.
  var cache: CacheTensors?
  /// nil: tokens attend to all they see.
  var selected: CallTensor?

  init(_ raw: mla_layer_forward_args, _ config: LayerConfig, readsNewTokens: Bool)
    throws(MLAError)
  {
    let device = config.attention.device
    q = try CallTensor(raw.q, name: "q", on: device, rank: 3)
    try q.requireType(config.type, "the layer's dtype")
    if readsNewTokens {
      latents = try CallTensor(raw.kv_c_normed, name: "kv_c_normed", on: device, rank: 2)
      rope = try CallTensor(
        raw.k_pe, name: "k_pe", on: device, rank: 2, mayBeNull: config.attention.qkRopeHeadDim == 0)
    } else {
      (latents, rope) = (nil, nil)
    }
    out = try CallTensor(raw.out, name: "out", on: device, rank: 3)
  }

  mutating func readCache(_ raw: mla_layer_forward_args, _ config: LayerConfig) throws(MLAError) {
    let tensors = try CacheTensors(
      raw.kv_cache, rope: raw.k_pe_cache, isPlain: config.cacheFormat.isPlain,
      on: config.attention.device)
    switch config.cacheFormat {
    case .plain(let type, _):
      try tensors.cache.requireType(type, "the layer's cache_dtype")
      let (rank, rope) = (config.attention.kvLoraRank, config.attention.qkRopeHeadDim)
      try tensors.rope?.requireWidth((rope, "the layer's qk_rope_head_dim"))
      try tensors.cache.requireWidth(
        tensors.rope == nil
          ? (rank + rope, "kv_lora_rank + qk_rope_head_dim")
          : (rank, "kv_lora_rank, beside k_pe_cache"))
    case .fp8DsMLA: try DsMLASlot.check(tensors.cache)
    }
    try tensors.requireBlocksOfSlots()
    cache = tensors
  }

  func check(_ config: LayerConfig, isQuantized: Bool) throws(MLAError) {
    let tokens = (q.shape[0], "the rows of q")
    let heads = (config.attention.numHeads, "the layer's num_heads")
    try q.requireShape(
      tokens, heads, (config.attention.qkHeadDim, "qk_nope_head_dim + qk_rope_head_dim"))
    try latents?.requireShape(tokens, (config.attention.kvLoraRank, "the layer's kv_lora_rank"))
    try rope?.requireShape(
      tokens, (config.attention.qkRopeHeadDim, "the layer's qk_rope_head_dim"))
    try out.requireShape(tokens, heads, (config.attention.vHeadDim, "the layer's v_head_dim"))
    try lse?.requireShape(heads, tokens)
    try latents?.requireType(config.type, "the layer's dtype")
    try rope?.requireType(config.type, "the layer's dtype")
    if !isQuantized { try out.requireAttentionType() }
    try lse?.requireType(.float32, "whatever q's")
  }

  func checkOverlaps(_ workspace: Workspace?) throws(MLAError) {
    let (cache, ropeCache) = (cache?.cache, cache?.rope)
    try out.requireOutput(apartFrom: q, latents, rope, cache, ropeCache)
    try lse?.requireOutput(apartFrom: q, latents, rope, cache, out)
    try lse?.requireNoOverlap(with: ropeCache)
    try out.requireNoOverlap(with: selected)
    try lse?.requireNoOverlap(with: selected)
    try workspace?.requireNoOverlap(with: q, latents, rope, cache, ropeCache, out, lse, selected)
  }
}
