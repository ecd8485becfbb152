import MLAShims

typealias FloatVector = SIMD8<Float>

/// 4 x 3 accumulators, three operands and a broadcast: all 16 registers.
@inline(__always) var vectorsPerPanel: Int { 3 }
