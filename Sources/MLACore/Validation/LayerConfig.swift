import CMLAPrefill

/// What a layer is made for, checked.
struct LayerConfig: Sendable {
  let attention: BackendConfig
  /// Of q, kv_c_normed and k_pe; keys and values are made in it.
  let type: ElementType
  /// nil: the selector chooses.
  let backend: String?
  let cacheType: ElementType
  /// 1 but for an fp8 cache.
  let cacheScale: Float
  /// nil: none.
  let workspaceBound: Int?
  let algorithm: LayerAlgorithm

  /// The weights are the caller's, and are not kept.
  static func read(_ pointer: UnsafePointer<mla_layer_config>?) throws(MLAError)
    -> (config: LayerConfig, weights: TensorView)
  {
    let raw = try readStruct(pointer, name: "config", minimumSize: 72)
    let weights = try TensorView(raw.kv_b_proj, name: "config.kv_b_proj", rank: 2)
    return (try LayerConfig(raw, weights), weights)
  }

  private init(_ raw: mla_layer_config, _ weights: TensorView) throws(MLAError) {
    attention = try Self.attention(raw)
    guard attention.kvLoraRank > 0 else {
      throw .invalid("config.kv_lora_rank", 0, "must be at least 1")
    }
    backend =
      raw.backend == nil
      ? nil : try readString(raw.backend, field: "config.backend", maximumBytes: maximumNameBytes)
    try weights.requireAttentionType()
    let rowsPerHead = attention.qkNopeHeadDim + attention.vHeadDim
    try weights.requireShape([
      (attention.numHeads * rowsPerHead, "num_heads * (qk_nope_head_dim + v_head_dim)"),
      (attention.kvLoraRank, "kv_lora_rank"),
    ])
    type = try Self.type(raw.dtype, "config.dtype", default: weights.type)
    guard type.isAttentionType else {
      throw .invalid("config.dtype", type.name, "must be fp32, fp16 or bf16")
    }
    cacheType = try Self.type(raw.cache_dtype, "config.cache_dtype", default: type)
    cacheScale = try checkedCacheScale(raw.cache_scale, "config.cache_scale", cacheType)
    guard raw.workspace_bound >= 0 else {
      throw .invalid("config.workspace_bound", raw.workspace_bound, "must not be negative")
    }
    workspaceBound = raw.workspace_bound == 0 ? nil : Int(raw.workspace_bound)
    guard let algorithm = LayerAlgorithm(rawValue: raw.algorithm) else {
      throw .invalid("config.algorithm", raw.algorithm, "must be one of MLA_LAYER_ALGORITHM_*")
    }
    self.algorithm = algorithm
  }

  /// The fields that a backend object has as well, by the same rules.
  private static func attention(_ raw: mla_layer_config) throws(MLAError) -> BackendConfig {
    var config = mla_backend_config(
      struct_size: UInt32(MemoryLayout<mla_backend_config>.size), num_heads: raw.num_heads,
      scale: raw.scale, kv_lora_rank: raw.kv_lora_rank, qk_nope_head_dim: raw.qk_nope_head_dim,
      qk_rope_head_dim: raw.qk_rope_head_dim, v_head_dim: raw.v_head_dim, max_isa: raw.max_isa,
      ignore_override: 0)
    return try BackendConfig(&config)
  }

  private static func type(_ raw: Int32, _ field: String, default type: ElementType)
    throws(MLAError) -> ElementType
  {
    if raw == Int32(MLA_DTYPE_NONE) { return type }
    guard let type = ElementType(rawValue: raw) else {
      throw .invalid(field, raw, "must be one of MLA_DTYPE_*")
    }
    return type
  }
}

/// Who chooses between the forms of a request's attention; the values of
/// MLA_LAYER_ALGORITHM_*.
enum LayerAlgorithm: Int32 {
  case auto = 0
  case upProjected = 1
  case absorbed = 2
}

/// The scale of a paged cache's elements, 1 for one that is not quantized.
func checkedCacheScale(_ scale: Float, _ field: String, _ type: ElementType) throws(MLAError)
  -> Float
{
  guard type == .float8E4M3 else {
    guard scale == 0 || scale == 1 else {
      throw .invalid(field, scale, "must be 0 or 1 for a cache of \(type.name)")
    }
    return 1
  }
  guard scale.isFinite, scale > 0 else {
    throw .invalid(field, scale, "must be finite and above 0 for a cache of \(type.name)")
  }
  return scale
}
