import MLAShims

/// How numbers of a dtype become operands of tile products, which are of bf16: as
/// sums of `parts` numbers, each the bf16 nearest to what those before it leave.
protocol TileOperands {
  /// How numbers lie in memory.
  associatedtype Element: ElementFormat
  static var parts: Int { get }
  /// How often a step of scores takes four products, of one part of the left operands
  /// with one of the right ones each.
  static var scoreProducts: Int { get }
  /// The same of values and probabilities, where the smallest parts do not meet.
  static var valueProducts: Int { get }
  /// A part of 32 numbers of a row of which `bytes` are left, zeros beyond.
  static func elements(_ part: Int, _ p: UnsafeRawPointer, _ bytes: Int) -> FloatVector
  /// `v` as it would come back from memory, up to what its parts round as well.
  static func rounded(_ v: FloatVector) -> FloatVector
  /// 2^x, as exactly as the parts of a probability are.
  static func probability(_ x: FloatVector) -> FloatVector
}

/// What holds of the dtypes that have several parts, and where nothing is lost in memory.
extension TileOperands {
  @inline(__always)
  static func elements(_ part: Int, _ p: UnsafeRawPointer, _ bytes: Int) -> FloatVector {
    let half = lanes * Element.bytes
    return joined(
      part, loadTail(Element.self, p, bytes), loadTail(Element.self, p + half, bytes - half))
  }
  @inline(__always) static func rounded(_ v: FloatVector) -> FloatVector { v }
  @inline(__always) static func probability(_ x: FloatVector) -> FloatVector { exp2(x) }
}

extension TileOperands {
  /// A part of two vectors, side by side: `low` in the lower half.
  @inline(__always)
  static func joined(_ part: Int, _ low: FloatVector, _ high: FloatVector) -> FloatVector {
    mla_join_bf16(remainder(part, low), remainder(part, high))
  }

  /// A part of two vectors, paired lane by lane: `low` in bits 0-15.
  @inline(__always)
  static func paired(_ part: Int, _ low: FloatVector, _ high: FloatVector) -> FloatVector {
    mla_pair_bf16(remainder(part, low), remainder(part, high))
  }

  /// What is left of `v` for a part.
  @inline(__always)
  private static func remainder(_ part: Int, _ v: FloatVector) -> FloatVector {
    var left = v
    for _ in 0..<part {
      let taken = mla_round_bf16(left)
      // Of an infinity nothing is left.
      left = mla_select_eq(left, taken, FloatVector(repeating: 0), left - taken)
    }
    return left
  }
}

/// bf16 as it is.
enum BFloat16Operands: TileOperands {
  typealias Element = BFloat16Format
  @inline(__always) static var parts: Int { 1 }
  @inline(__always) static var scoreProducts: Int { 1 }
  @inline(__always) static var valueProducts: Int { 1 }

  @inline(__always)
  static func elements(_: Int, _ p: UnsafeRawPointer, _ bytes: Int) -> FloatVector {
    loadTail(Float32Format.self, p, bytes)
  }
  @inline(__always) static func probability(_ x: FloatVector) -> FloatVector { fastExp2(x) }
}

/// fp16: 11 bits in two numbers of 8, exactly, none of them subnormal.
enum Float16Operands: TileOperands {
  typealias Element = Float16Format
  @inline(__always) static var parts: Int { 2 }
  @inline(__always) static var scoreProducts: Int { 4 }
  @inline(__always) static var valueProducts: Int { 3 }
  @inline(__always) static func rounded(_ v: FloatVector) -> FloatVector { mla_round_f16(v) }
}

/// fp32: 24 bits in three numbers of 8, exactly from 2^-110 up to 2^128 (1 - 2^-9),
/// where a number counts as infinite.
enum Float32Operands: TileOperands {
  typealias Element = Float32Format
  @inline(__always) static var parts: Int { 3 }
  @inline(__always) static var scoreProducts: Int { 6 }
  @inline(__always) static var valueProducts: Int { 6 }
}
