import CMLAPrefill

/// What a backend object is made for, checked.
struct BackendConfig: Equatable, Sendable {
  let numHeads: Int
  let scale: Double
  let kvLoraRank: Int
  let qkNopeHeadDim: Int
  let qkRopeHeadDim: Int
  let vHeadDim: Int
  /// MLA_ISA_*: the strongest kernels allowed.
  let maxISA: Int32
  /// Whether the member's own implementation is wanted, whatever overrides it.
  let ignoresOverride: Bool
  /// Where the tensors of all runs are.
  let device: Device

  var qkHeadDim: Int { qkNopeHeadDim + qkRopeHeadDim }
}

extension BackendConfig {
  init(_ pointer: UnsafePointer<mla_backend_config>?) throws(MLAError) {
    let raw = try readStruct(pointer, name: "config")
    try checkRange("config.num_heads", raw.num_heads, 1...65536)
    try checkScale("config.scale", raw.scale)
    try checkRange("config.kv_lora_rank", raw.kv_lora_rank, 0...65536)
    try checkRange("config.qk_nope_head_dim", raw.qk_nope_head_dim, 0...maximumHeadDim)
    try checkRange("config.qk_rope_head_dim", raw.qk_rope_head_dim, 0...maximumHeadDim)
    try checkRange("config.v_head_dim", raw.v_head_dim, 1...maximumHeadDim)
    guard raw.qk_nope_head_dim + raw.qk_rope_head_dim > 0 else {
      throw .invalid("config.qk_nope_head_dim", 0, "must not be 0 where qk_rope_head_dim is 0")
    }
    try checkRange("config.max_isa", raw.max_isa, 0...Int32(MLA_ISA_NEON_BF16))
    self.init(
      numHeads: Int(raw.num_heads), scale: raw.scale, kvLoraRank: Int(raw.kv_lora_rank),
      qkNopeHeadDim: Int(raw.qk_nope_head_dim), qkRopeHeadDim: Int(raw.qk_rope_head_dim),
      vHeadDim: Int(raw.v_head_dim), maxISA: raw.max_isa,
      ignoresOverride: raw.ignore_override != 0,
      device: try Device(type: raw.device_type, id: raw.device_id, structName: "config"))
  }
}

/// Far above any model's; keeps products of dimensions far from overflow.
public let maximumHeadDim: Int32 = 1 << 16

/// What scores are multiplied by.
func checkScale(_ field: String, _ scale: Double) throws(MLAError) {
  // So that neither it nor its product with log2(e) leaves fp32's normal numbers.
  guard scale == 0 || (0x1p-126...0x1p127).contains(abs(scale)) else {
    throw .invalid(field, scale, "must be 0 or of a size from 2^-126 to 2^127")
  }
}

func checkRange(_ field: String, _ value: Int32, _ range: ClosedRange<Int32>) throws(MLAError) {
  guard range.contains(value) else {
    throw .invalid(field, value, "must be \(range.lowerBound) to \(range.upperBound)")
  }
}
