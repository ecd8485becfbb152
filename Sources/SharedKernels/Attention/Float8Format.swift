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
    mla_store_u8(p, mla_bits(float8Codes(v)))
  }
}
