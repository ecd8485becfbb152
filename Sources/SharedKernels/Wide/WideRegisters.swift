import MLAShims

typealias FloatVector = SIMD16<Float>
typealias Group<Row: QueryRow> = Rows8<Row>
@inline(__always) var rowsPerGroup: Int { 8 }
/// 8 x 3 accumulators and three operands: 27 of 32 registers.
@inline(__always) var vectorsPerPanel: Int { 3 }

/// Registers abound, and broadcasts are operands of the multiplication: loads
/// may move freely.
@inline(__always)
func held(_ p: UnsafePointer<Float>, until v: FloatVector) -> UnsafePointer<Float> { p }
