/// Element formats by the values of MLA_DTYPE_* (and MLA_FORMAT_*), with
/// conversions that are exact or round to nearest even.
public enum ElementFormat: Int32, CaseIterable, Sendable {
  case float32 = 1
  case float16 = 2
  case bfloat16 = 3
  case float8E4M3FN = 4

  /// What q, k and v may be made of.
  public static let inputs: [ElementFormat] = [.bfloat16, .float16, .float32]

  public var byteCount: Int {
    switch self {
    case .float32: 4
    case .float16, .bfloat16: 2
    case .float8E4M3FN: 1
    }
  }

  public var name: String {
    switch self {
    case .float32: "fp32"
    case .float16: "fp16"
    case .bfloat16: "bf16"
    case .float8E4M3FN: "fp8_e4m3"
    }
  }

  public init?(name: String) {
    guard let format = Self.allCases.first(where: { $0.name == name }) else { return nil }
    self = format
  }

  /// A NaN that no computation produces: what lies around a tensor.
  public var poison: UInt32 {
    switch self {
    case .float32: 0x7FAD_BEEF
    case .float16: 0x7DAD
    case .bfloat16: 0x7FAD
    case .float8E4M3FN: 0x7F
    }
  }

  public func bits(_ value: Double) -> UInt32 {
    switch self {
    case .float32: Float(value).bitPattern
    case .float16: UInt32(Float16(value).bitPattern)
    case .bfloat16: bfloat16Bits(Float(value))
    case .float8E4M3FN: float8Bits(value)
    }
  }

  public func value(bits: UInt32) -> Double {
    switch self {
    case .float32: Double(Float(bitPattern: bits))
    case .float16: Double(Float16(bitPattern: UInt16(truncatingIfNeeded: bits)))
    case .bfloat16: Double(Float(bitPattern: bits << 16))
    case .float8E4M3FN: float8Values[Int(bits & 0xFF)]
    }
  }

  /// Whether `value` is what `exact` may round to: the nearest value of the
  /// format, or its neighbour where an error of `slack` makes it as near.
  public func isNearest(_ value: Double, to exact: Double, slack: Double) -> Bool {
    let nearest = self.value(bits: bits(exact))
    if value == nearest { return true }
    let saturated = self == .float8E4M3FN ? max(-448, min(448, exact)) : exact
    return abs(value - saturated) <= abs(nearest - saturated) + slack * abs(saturated)
  }

  public func loadBits(_ pointer: UnsafeRawPointer) -> UInt32 {
    switch byteCount {
    case 4: pointer.loadUnaligned(as: UInt32.self)
    case 2: UInt32(pointer.loadUnaligned(as: UInt16.self))
    default: UInt32(pointer.load(as: UInt8.self))
    }
  }

  public func storeBits(_ bits: UInt32, to pointer: UnsafeMutableRawPointer) {
    switch byteCount {
    case 4: pointer.storeBytes(of: bits, as: UInt32.self)
    case 2: pointer.storeBytes(of: UInt16(truncatingIfNeeded: bits), as: UInt16.self)
    default: pointer.storeBytes(of: UInt8(truncatingIfNeeded: bits), as: UInt8.self)
    }
  }
}

private func bfloat16Bits(_ value: Float) -> UInt32 {
  let bits = value.bitPattern
  if value.isNaN { return (bits >> 16) | 0x40 }
  return (bits &+ 0x7FFF &+ ((bits >> 16) & 1)) >> 16
}

/// Saturates at 448, as kernels do; ties go to the even code.
private func float8Bits(_ value: Double) -> UInt32 {
  if value.isNaN { return 0x7F }
  let magnitude = min(abs(value), 448)
  var best = 0
  for code in 1..<0x7F {
    let gain = abs(float8Values[best] - magnitude) - abs(float8Values[code] - magnitude)
    if gain > 0 || (gain == 0 && code % 2 == 0) { best = code }
  }
  return UInt32(best) | (value.sign == .minus ? 0x80 : 0)
}

/// Value of each e4m3fn code: no infinities, NaN where all but the sign are ones.
private let float8Values: [Double] = (0..<256).map { code in
  let sign = code & 0x80 == 0 ? 1.0 : -1.0
  let exponent = (code >> 3) & 0xF
  let mantissa = Double(code & 7)
  if code & 0x7F == 0x7F { return .nan }
  if exponent == 0 { return sign * mantissa * 0x1p-9 }
  return sign * (1 + mantissa / 8) * Double(sign: .plus, exponent: exponent - 7, significand: 1)
}
