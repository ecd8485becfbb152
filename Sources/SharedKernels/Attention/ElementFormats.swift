import MLAShims

/// A format of elements in memory that fp32 lanes can be written to.
protocol TargetFormat {
  /// Bytes of an element.
  static var bytes: Int { get }
  /// Rounds to nearest even.
  static func store(_ v: FloatVector, _ p: UnsafeMutableRawPointer)
}

/// One that can be read into fp32 lanes as well.
protocol ElementFormat: TargetFormat {
  static func load(_ p: UnsafeRawPointer) -> FloatVector
}

enum Float32Format: ElementFormat {
  @inline(__always) static var bytes: Int { 4 }
  @inline(__always) static func load(_ p: UnsafeRawPointer) -> FloatVector { mla_load_f32(p) }
  @inline(__always) static func store(_ v: FloatVector, _ p: UnsafeMutableRawPointer) {
    mla_store_f32(p, v)
  }
}

enum BFloat16Format: ElementFormat {
  @inline(__always) static var bytes: Int { 2 }
  @inline(__always) static func load(_ p: UnsafeRawPointer) -> FloatVector {
    mla_from_bits(mla_load_u16(p) &<< 16)
  }
  @inline(__always) static func store(_ v: FloatVector, _ p: UnsafeMutableRawPointer) {
    let bits = mla_bits(v)
    let odd = (bits &>> 16) & 1
    let rounded = mla_from_bits((bits &+ 0x7fff &+ odd) &>> 16)
    // Rounding would carry a NaN into infinity or zero: keep it, quiet.
    let quiet = mla_from_bits((bits &>> 16) | 0x40)
    mla_store_u16(p, mla_bits(mla_select_eq(v, v, rounded, quiet)))
  }
}

/// One vector's worth of a row of which `bytes` are left: nothing beyond them is
/// read, lanes beyond them are zero.
@inline(__always)
func loadTail<Format: ElementFormat>(_: Format.Type, _ p: UnsafeRawPointer, _ bytes: Int)
  -> FloatVector
{
  if bytes >= lanes * Format.bytes { return Format.load(p) }
  var whole = FloatVector(repeating: 0)
  return withUnsafeMutableBytes(of: &whole) { copy in
    let start = copy.baseAddress.unsafelyUnwrapped
    if bytes > 0 { start.copyMemory(from: p, byteCount: bytes) }
    return Format.load(start)
  }
}

/// Writes the first `count` lanes, and nothing beyond them.
@inline(__always)
func storeTail<Format: TargetFormat>(
  _: Format.Type, _ v: FloatVector, _ p: UnsafeMutableRawPointer, _ count: Int
) {
  if count >= lanes {
    Format.store(v, p)
    return
  }
  var whole = FloatVector(repeating: 0)
  withUnsafeMutableBytes(of: &whole) { copy in
    let start = copy.baseAddress.unsafelyUnwrapped
    Format.store(v, start)
    p.copyMemory(from: start, byteCount: count * Format.bytes)
  }
}
