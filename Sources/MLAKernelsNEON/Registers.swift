import MLAShims

/// Two registers of Arm's.
typealias FloatVector = SIMD8<Float>

/// 4 x 3 accumulators and three operands, two registers each, and one with a number of each
/// row: 31 of 32 registers.
@inline(__always) var vectorsPerPanel: Int { 3 }
