import CMLAPrefill

/// The dtypes of tensors.
public enum ElementType: Int32, Sendable, CaseIterable {
  case float32 = 1
  case float16 = 2
  case bfloat16 = 3
  case float8E4M3 = 4

  public var bytes: Int {
    switch self {
    case .float32: 4
    case .float16, .bfloat16: 2
    case .float8E4M3: 1
    }
  }

  /// What attention reads and writes unquantized.
  public var isAttentionType: Bool { self != .float8E4M3 }
}
