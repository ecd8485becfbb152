import CMLAPrefill

/// How keys lie in an index cache.
enum IndexFormat {
  case plain
  /// Of a block all keys as e4m3, then their scales.
  case fp8Block

  static let scaleBytes = 4

  init(_ raw: Int32) throws(MLAError) {
    switch Int(raw) {
    case MLA_INDEX_FORMAT_PLAIN: self = .plain
    case MLA_INDEX_FORMAT_FP8_BLOCK: self = .fp8Block
    default: throw .invalid("format", raw, "must be one of MLA_INDEX_FORMAT_*")
    }
  }

  /// The slots of a cache of keys that are as wide as `rows`.
  func slots(of cache: CallTensor, as rows: CallTensor) throws(MLAError) -> CacheSlots {
    let headDim = rows.width
    switch self {
    case .plain:
      try cache.requireAttentionType()
      try cache.requireWidth((headDim, "the head dimension of \(rows.name)"))
    case .fp8Block:
      let width = headDim + Self.scaleBytes
      try cache.requireType(.float8E4M3, "with MLA_INDEX_FORMAT_FP8_BLOCK")
      try cache.requireWidth((width, "the head dimension of \(rows.name) and 4 more, a scale's"))
      // What has no elements has no strides.
      guard cache.shape.count == 2 || cache.shape[1] < 2 || cache.shape.isEmpty
        || cache.strides[1] == width
      else {
        throw .invalid(
          "index_cache.strides[1]", cache.strides[1],
          "must be \(width): all of a block lies side by side with MLA_INDEX_FORMAT_FP8_BLOCK")
      }
    }
    guard cache.shape.count == 2 || cache.shape[1] > 0 else {
      throw .invalid("index_cache.shape[1]", 0, "must be at least 1")
    }
    return CacheSlots(cache, self)
  }
}

/// What is done to a key before it is cached, or to a query before it is multiplied.
struct IndexTransform {
  enum Scale {
    case float32
    case powerOfTwo

    init(_ raw: Int32) throws(MLAError) {
      switch Int(raw) {
      case MLA_INDEX_SCALE_FP32: self = .float32
      case MLA_INDEX_SCALE_POWER_OF_TWO: self = .powerOfTwo
      default: throw .invalid("scale_format", raw, "must be one of MLA_INDEX_SCALE_*")
      }
    }
  }

  /// Whether it is turned by the Hadamard matrix.
  let turns: Bool
  /// nil: it is not quantized.
  let scale: Scale?

  var isNone: Bool { !turns && scale == nil }

  /// - Parameter quantizes: whether the scale's format is of use.
  init(
    hadamard: Int32, scaleFormat: Int32, quantizes: Bool, headDim: Int
  ) throws(MLAError) {
    turns = try flag("hadamard", hadamard)
    guard !turns || headDim.nonzeroBitCount == 1 else {
      throw .invalid("hadamard", 1, "must be 0: the head dimension, \(headDim), is no power of two")
    }
    let scale = try Scale(scaleFormat)
    self.scale = quantizes ? scale : nil
  }
}

/// A field that is 0 or 1.
func flag(_ field: String, _ raw: Int32) throws(MLAError) -> Bool {
  try checkRange(field, raw, 0...1)
  return raw == 1
}
