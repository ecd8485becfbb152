import MLAShims

/// e4m3fn: rounds to nearest even, saturates to +-448, keeps NaN.
enum Float8Format: ElementFormat {
  @inline(__always) static var bytes: Int { 1 }

  @inline(__always) static func load(_ p: UnsafeRawPointer) -> FloatVector {
    let code = mla_load_u8(p)
    // A subnormal read as if it were normal is (1 + m / 8) * 2^-7 where m / 8 * 2^-6
    // is meant. No fp32 subnormal comes up: they are slow.
    let normal = mla_from_bits(((code & 0x7f) &<< 20) &+ 0x3c00_0000)
    let smallest = FloatVector(repeating: 0x1p-6)
    let finite = mla_select_ge(normal, smallest, normal, normal + normal - smallest)
    // 480 is what the code of NaN would be.
    let value = mla_select_eq(
      normal, FloatVector(repeating: 480), FloatVector(repeating: .nan), finite)
    return mla_from_bits(mla_bits(value) | ((code & 0x80) &<< 24))
  }

  @inline(__always) static func store(_ v: FloatVector, _ p: UnsafeMutableRawPointer) {
    for lane in 0..<lanes { p.storeBytes(of: encode(v[lane]), toByteOffset: lane, as: UInt8.self) }
  }

  @inline(__always) private static func encode(_ x: Float) -> UInt8 {
    let sign = UInt8(truncatingIfNeeded: (x.bitPattern >> 24) & 0x80)
    let bits = x.bitPattern & 0x7fff_ffff
    if bits > 0x7f80_0000 { return sign | 0x7f }
    // 448 is 0x43e00000; everything above rounds to it or saturates.
    if bits >= 0x43e0_0000 { return sign | 0x7e }
    // Below 2^-6 values are multiples of 2^-9: adding 2^14 leaves them, rounded
    // to even, in the last bits of the sum.
    if bits < 0x3c80_0000 {
      let sum = Float(bitPattern: bits) + 16384
      return sign | UInt8(truncatingIfNeeded: sum.bitPattern &- Float(16384).bitPattern)
    }
    let rounded = bits &+ 0x7ffff &+ ((bits >> 20) & 1)
    return sign | UInt8(truncatingIfNeeded: (rounded >> 20) &- ((127 - 7) << 3))
  }
}
