import MLAShims

/// e4m3fn: rounds to nearest even, saturates to +-448, keeps NaN.
enum Float8Format: ElementFormat {
  @inline(__always) static var bytes: Int { 1 }

  @inline(__always) static func load(_ p: UnsafeRawPointer) -> FloatVector {
    let code = mla_load_u8(p)
    // As fp32 bits the exponent is too small by 120; the product puts that right
    // and makes subnormals normal.
    let bias = FloatVector(repeating: Float(bitPattern: 0x7b80_0000))
    var bits = mla_bits(mla_from_bits((code & 0x7f) &<< 20) * bias)
    bits.replace(with: 0x7fc0_0000, where: (code & 0x7f) .== 0x7f)
    return mla_from_bits(bits | ((code & 0x80) &<< 24))
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
