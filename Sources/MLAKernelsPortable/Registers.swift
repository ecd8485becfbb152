import MLAShims

typealias FloatVector = SIMD4<Float>

/// Without a fused multiply-add a product needs a register of its own: 4 x 2
/// accumulators, two operands, a broadcast and a product fit in 16.
@inline(__always) var vectorsPerPanel: Int { 2 }
