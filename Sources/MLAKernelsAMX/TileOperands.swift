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
  /// The parts of 32 numbers of a row of which `bytes` are left, zeros beyond.
  static func forEachPart(
    of p: UnsafeRawPointer, _ bytes: Int, _ body: (_ part: Int, _ v: FloatVector) -> Void)
  /// `v` as it would come back from memory, up to what its parts round as well.
  static func rounded(_ v: FloatVector) -> FloatVector
  /// 2^x, as exactly as the parts of a probability are.
  static func probability(_ x: FloatVector) -> FloatVector
}

/// What holds of the dtypes that have several parts, and where nothing is lost in memory.
extension TileOperands {
  @inline(__always)
  static func forEachPart(
    of p: UnsafeRawPointer, _ bytes: Int, _ body: (_ part: Int, _ v: FloatVector) -> Void
  ) {
    let half = lanes * Element.bytes
    forEachPart(
      joining: loadTail(Element.self, p, bytes),
      loadTail(Element.self, p + half, bytes - half), body)
  }
  @inline(__always) static func rounded(_ v: FloatVector) -> FloatVector { v }
  @inline(__always) static func probability(_ x: FloatVector) -> FloatVector { exp2(x) }
}

extension TileOperands {
  /// The parts of 32 numbers as above; nil: zeros.
  @inline(__always)
  static func forEachPart(
    ofAny p: UnsafeRawPointer?, _ bytes: Int, _ body: (_ part: Int, _ v: FloatVector) -> Void
  ) {
    if let p {
      forEachPart(of: p, bytes, body)
    } else {
      for part in 0..<parts { body(part, FloatVector(repeating: 0)) }
    }
  }

  /// The parts of two vectors, side by side: `low` in the lower half.
  @inline(__always)
  static func forEachPart(
    joining low: FloatVector, _ high: FloatVector,
    _ body: (_ part: Int, _ v: FloatVector) -> Void
  ) {
    forEachPart(of: (low, high), as: mla_join_bf16, body)
  }

  /// The parts of two vectors, paired lane by lane: `low` in bits 0-15.
  @inline(__always)
  static func forEachPart(
    pairing low: FloatVector, _ high: FloatVector,
    _ body: (_ part: Int, _ v: FloatVector) -> Void
  ) {
    forEachPart(of: (low, high), as: mla_pair_bf16, body)
  }

  @inline(__always)
  private static func forEachPart(
    of vectors: (FloatVector, FloatVector),
    as bfloat16: (FloatVector, FloatVector) -> FloatVector,
    _ body: (_ part: Int, _ v: FloatVector) -> Void
  ) {
    var (low, high) = vectors
    for part in 0..<parts {
      body(part, bfloat16(low, high))
      (low, high) = (remainder(low), remainder(high))
    }
  }

  /// What the bf16 nearest to `v` leaves.
  @inline(__always)
  private static func remainder(_ v: FloatVector) -> FloatVector {
    let taken = mla_round_bf16(v)
    // Of an infinity nothing is left.
    return mla_select_eq(v, taken, FloatVector(repeating: 0), v - taken)
  }
}

/// bf16 as it is.
enum BFloat16Operands: TileOperands {
  typealias Element = BFloat16Format
  @inline(__always) static var parts: Int { 1 }
  @inline(__always) static var scoreProducts: Int { 1 }
  @inline(__always) static var valueProducts: Int { 1 }

  @inline(__always)
  static func forEachPart(
    of p: UnsafeRawPointer, _ bytes: Int, _ body: (_ part: Int, _ v: FloatVector) -> Void
  ) {
    body(0, loadTail(Float32Format.self, p, bytes))
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
