import CMLAPrefill

/// How a token lies in a paged cache.
enum CacheFormat: Equatable, Sendable {
  /// Latent, then rotary part, of one type; `scale` multiplies what is read and
  /// is 1 but for fp8.
  case plain(ElementType, scale: Float)
  /// See `DsMLASlot`.
  case fp8DsMLA

  var isPlain: Bool {
    switch self {
    case .plain: true
    case .fp8DsMLA: false
    }
  }

  /// - Parameters:
  ///   - type: of the cache's tensor.
  ///   - structName: the struct that holds the fields, and a dot; may be "".
  init(_ raw: Int32, _ type: ElementType, scale: Float, structName: String) throws(MLAError) {
    let scaleField = structName + "cache_scale"
    switch Int(raw) {
    case MLA_CACHE_FORMAT_PLAIN:
      guard type != .float8E8M0 else {
        throw .invalid(structName + "cache_dtype", type.name, "is for weight_scales alone")
      }
      self = .plain(type, scale: try Self.checkedScale(scale, scaleField, type))
    case MLA_CACHE_FORMAT_FP8_DS_MLA:
      guard scale == 0 || scale == 1 else {
        throw .invalid(
          scaleField, scale,
          "must be 0 or 1 with MLA_CACHE_FORMAT_FP8_DS_MLA: tokens have their own")
      }
      self = .fp8DsMLA
    default:
      throw .invalid(structName + "cache_format", raw, "must be one of MLA_CACHE_FORMAT_*")
    }
  }

  private static func checkedScale(_ scale: Float, _ field: String, _ type: ElementType)
    throws(MLAError) -> Float
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
}

/// A token in a cache of the format that vLLM and FlashMLA call fp8_ds_mla, at
/// any alignment:
///
///     byte   0   512 latents, e4m3
///     byte 512   4 fp32 scales, one for each 128 latents
///     byte 528   64 rotary values, bf16; zeros where keys have none
enum DsMLASlot {
  static let rank = 512
  static let rope = 64
  /// Latents that share a scale.
  static let group = 128
  static let scalesOffset = rank
  static let ropeOffset = scalesOffset + rank / group * 4
  static let bytes = ropeOffset + rope * 2

  /// - Parameter cache: its last dimension is a token's bytes.
  static func check(_ cache: CallTensor) throws(MLAError) {
    try cache.requireType(.float8E4M3, "with MLA_CACHE_FORMAT_FP8_DS_MLA")
    try cache.requireWidth((bytes, "the bytes of a token in MLA_CACHE_FORMAT_FP8_DS_MLA"))
    guard cache.shape.count == 2 || cache.strides[1].isMultiple(of: 2) else {
      throw .invalid(
        "\(cache.name).strides[1]", cache.strides[1],
        "must be even with MLA_CACHE_FORMAT_FP8_DS_MLA: a token's k_pe has elements of two bytes")
    }
  }
}
