import MLAShims

typealias FloatVector = SIMD8<Float>
