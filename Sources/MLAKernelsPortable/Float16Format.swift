import MLAShims

/// IEEE half precision by integer arithmetic, for CPUs without F16C.
enum Float16Format: ElementFormat {
  @inline(__always) static var bytes: Int { 2 }

  @inline(__always) static func load(_ p: UnsafeRawPointer) -> FloatVector {
    let half = mla_load_u16(p)
    // As fp32 bits the exponent is too small by 112; the product puts that right
    // and makes subnormals normal.
    let bias = FloatVector(repeating: Float(bitPattern: 0x7780_0000))
    var bits = mla_bits(mla_from_bits((half & 0x7fff) &<< 13) * bias)
    bits.replace(with: bits | 0x7f80_0000, where: (half & 0x7fff) .>= 0x7c00)
    return mla_from_bits(bits | ((half & 0x8000) &<< 16))
  }

  @inline(__always) static func store(_ v: FloatVector, _ p: UnsafeMutableRawPointer) {
    let sign = (mla_bits(v) &>> 16) & 0x8000
    let bits = mla_bits(v) & 0x7fff_ffff
    var half = (bits &+ 0xfff &+ ((bits &>> 13) & 1) &- 0x3800_0000) &>> 13
    // Subnormal halves are multiples of 2^-24: adding 0.5 leaves them, rounded
    // to even, in the last bits of the sum.
    let subnormal = mla_bits(mla_from_bits(bits) + 0.5) &- 0x3f00_0000
    half.replace(with: subnormal, where: bits .< 0x3880_0000)
    half.replace(with: 0x7c00, where: bits .>= 0x4780_0000)
    half.replace(with: 0x7e00, where: bits .> 0x7f80_0000)
    mla_store_u16(p, half | sign)
  }
}
