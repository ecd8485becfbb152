/// None of `source`: looking up takes wider registers.
@inline(__always)
func writeFloat8AsBFloat16(
  _ source: UnsafeRawPointer, to out: UnsafeMutableRawPointer, count: Int, times multiplier: Float
) -> Int { 0 }
