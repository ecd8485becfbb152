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
    let bits = mla_bits(v)
    let (smallest, largest) = (FloatVector(repeating: 0x1p-6), FloatVector(repeating: 448))
    let magnitude = mla_from_bits(bits & 0x7fff_ffff)
    let saturated = mla_select_ge(magnitude, largest, largest, magnitude)
    // Exponent and mantissa lie side by side in both formats, and rounding may
    // carry from one into the other.
    let code = mla_bits(saturated)
    let rounded = code &+ 0x7ffff &+ ((code &>> 20) & 1)
    let normal = (rounded &>> 20) &- ((127 - 7) << 3)
    // Below 2^-6 values are multiples of 2^-9: adding 2^14 leaves them, rounded
    // to even, in the last bits of the sum.
    let shifter = FloatVector(repeating: 0x1p14)
    let subnormal = mla_bits(saturated + shifter) &- mla_bits(shifter)
    let finite = mla_select_ge(
      saturated, smallest, mla_from_bits(normal), mla_from_bits(subnormal))
    let nan = FloatVector(repeating: Float(bitPattern: 0x7f))
    let coded = mla_bits(mla_select_eq(v, v, finite, nan))
    mla_store_u8(p, coded | ((bits &>> 24) & 0x80))
  }
}
