import MLAShims

typealias FloatVector = SIMD16<Float>
typealias Group<Row: QueryRow> = Rows8<Row>
@inline(__always) var rowsPerGroup: Int { 8 }
