import CMLAPrefill
import MLACUDAKernels

/// What a layer is made for, checked.
struct LayerConfig: Sendable {
  let attention: BackendConfig
  /// Of q, kv_c_normed and k_pe; keys and values are made in it.
  let type: ElementType
  /// nil: the selector chooses.
  let backend: String?
  let cacheFormat: CacheFormat
  /// nil: none.
  let workspaceBound: Int?
  let algorithm: LayerAlgorithm

  /// The weights are the caller's, and are not kept.
  static func read(_ pointer: UnsafePointer<mla_layer_config>?) throws(MLAError)
    -> (config: LayerConfig, weights: KVBProj)
  {
    let raw = try readStruct(pointer, name: "config")
    let device = try Device(type: raw.device_type, id: raw.device_id, structName: "config")
    if !device.isCUDA { try device.requireCPU("layers") }
    let weights = try KVBProj(
      HostTensor(raw.kv_b_proj, name: "config.kv_b_proj", on: device),
      scales: HostTensor(raw.weight_scales, name: "config.weight_scales", on: device),
      block: (raw.weight_block_rows, raw.weight_block_columns))
    return (try LayerConfig(raw, weights.weights), weights)
  }

  private init(_ raw: mla_layer_config, _ weights: CallTensor) throws(MLAError) {
    attention = try Self.attention(raw)
    guard attention.kvLoraRank > 0 else {
      throw .invalid("config.kv_lora_rank", 0, "must be at least 1")
    }
    backend = try raw.backend.map { name throws(MLAError) in
      try readString(name, field: "config.backend", maximumBytes: maximumNameBytes)
    }
    let rowsPerHead = attention.qkNopeHeadDim + attention.vHeadDim
    try weights.requireShape(
      (attention.numHeads * rowsPerHead, "num_heads * (qk_nope_head_dim + v_head_dim)"),
      (attention.kvLoraRank, "kv_lora_rank"))
    type =
      raw.dtype == MLA_DTYPE_NONE
      ? weights.type : try ElementType(raw.dtype, field: "config.dtype")
    guard type.isAttentionType else {
      throw .invalid("config.dtype", type.name, "must be fp32, fp16 or bf16")
    }
    cacheFormat = try Self.cacheFormat(raw, attention, default: type)
    guard raw.workspace_bound >= 0 else {
      throw .invalid("config.workspace_bound", raw.workspace_bound, "must not be negative")
    }
    workspaceBound = raw.workspace_bound == 0 ? nil : Int(raw.workspace_bound)
    guard let algorithm = LayerAlgorithm(rawValue: raw.algorithm) else {
      throw .invalid("config.algorithm", raw.algorithm, "must be one of MLA_LAYER_ALGORITHM_*")
    }
    self.algorithm = algorithm
    if attention.device.isCUDA { try requireCUDA() }
  }

  /// What kernels there take.
  private func requireCUDA() throws(MLAError) {
    guard type.bytes == 2 else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "config.dtype = \(type.name): must be MLA_DTYPE_BFLOAT16 or MLA_DTYPE_FLOAT16 on a CUDA "
          + "device")
    }
    let rules = [
      (attention.kvLoraRank, "kv_lora_rank", 64), (attention.qkNopeHeadDim, "qk_nope_head_dim", 8),
      (attention.qkRopeHeadDim, "qk_rope_head_dim", 8), (attention.vHeadDim, "v_head_dim", 8),
    ]
    for (value, field, unit) in rules where !value.isMultiple(of: unit) {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "config.\(field) = \(value): must be a multiple of \(unit) on a CUDA device")
    }
    let columns = attention.qkNopeHeadDim + attention.vHeadDim
    let most = min(65535, 65535 * Int(MLA_CUDA_PROJECTION_TILE) / max(1, columns))
    guard attention.numHeads <= most else {
      throw MLAError(
        MLA_ERROR_UNSUPPORTED_CONFIGURATION,
        "config.num_heads = \(attention.numHeads): must be at most \(most) of these dimensions on "
          + "a CUDA device")
    }
  }

  /// The fields that a backend object has as well, by the same rules.
  private static func attention(_ raw: mla_layer_config) throws(MLAError) -> BackendConfig {
    var config = mla_backend_config(
      struct_size: mla_backend_config.size, num_heads: raw.num_heads,
      scale: raw.scale, kv_lora_rank: raw.kv_lora_rank, qk_nope_head_dim: raw.qk_nope_head_dim,
      qk_rope_head_dim: raw.qk_rope_head_dim, v_head_dim: raw.v_head_dim, max_isa: raw.max_isa,
      ignore_override: 0, device_type: raw.device_type, device_id: raw.device_id)
    return try BackendConfig(&config)
  }

  private static func cacheFormat(
    _ raw: mla_layer_config, _ attention: BackendConfig, default type: ElementType
  ) throws(MLAError) -> CacheFormat {
    let isBytes = raw.cache_format == Int32(MLA_CACHE_FORMAT_FP8_DS_MLA)
    let cacheType =
      raw.cache_dtype == MLA_DTYPE_NONE
      ? isBytes ? .float8E4M3 : type
      : try ElementType(raw.cache_dtype, field: "config.cache_dtype")
    let format = try CacheFormat(
      raw.cache_format, cacheType, scale: raw.cache_scale, structName: "config.")
    guard isBytes else { return format }
    guard attention.kvLoraRank == DsMLASlot.rank else {
      throw .invalid(
        "config.kv_lora_rank", attention.kvLoraRank,
        "must be \(DsMLASlot.rank) with MLA_CACHE_FORMAT_FP8_DS_MLA")
    }
    guard [0, DsMLASlot.rope].contains(attention.qkRopeHeadDim) else {
      throw .invalid(
        "config.qk_rope_head_dim", attention.qkRopeHeadDim,
        "must be \(DsMLASlot.rope) or 0 with MLA_CACHE_FORMAT_FP8_DS_MLA")
    }
    guard cacheType == .float8E4M3 else {
      throw .invalid(
        "config.cache_dtype", cacheType.name,
        "must be MLA_DTYPE_FLOAT8_E4M3FN with MLA_CACHE_FORMAT_FP8_DS_MLA")
    }
    return format
  }
}

/// Who chooses between the forms of a request's attention; the values of
/// MLA_LAYER_ALGORITHM_*.
enum LayerAlgorithm: Int32 {
  case auto = 0
  case upProjected = 1
  case absorbed = 2
}
