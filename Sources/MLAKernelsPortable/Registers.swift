import MLAShims

typealias FloatVector = SIMD4<Float>
