/// The dtypes of tensors.
public enum ElementType: Int32, Sendable, CaseIterable {
  case float32 = 1
  case float16 = 2
  case bfloat16 = 3
  case float8E4M3 = 4
  /// Powers of two, scales of quantized weights.
  case float8E8M0 = 5

  public var bytes: Int {
    switch self {
    case .float32: 4
    case .float16, .bfloat16: 2
    case .float8E4M3, .float8E8M0: 1
    }
  }

  /// What attention reads and writes unquantized.
  public var isAttentionType: Bool {
    switch self {
    case .float32, .float16, .bfloat16: true
    case .float8E4M3, .float8E8M0: false
    }
  }

  /// As the header spells it.
  public var name: String {
    switch self {
    case .float32: "MLA_DTYPE_FLOAT32"
    case .float16: "MLA_DTYPE_FLOAT16"
    case .bfloat16: "MLA_DTYPE_BFLOAT16"
    case .float8E4M3: "MLA_DTYPE_FLOAT8_E4M3FN"
    case .float8E8M0: "MLA_DTYPE_FLOAT8_E8M0FNU"
    }
  }

  /// - Parameter field: what the number came from, for messages.
  init(_ raw: Int32, field: @autoclosure () -> String) throws(MLAError) {
    guard let type = Self(rawValue: raw) else {
      throw .invalid(field(), raw, "must be one of MLA_DTYPE_*")
    }
    self = type
  }
}
