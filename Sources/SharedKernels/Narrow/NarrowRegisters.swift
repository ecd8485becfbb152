import MLAShims

typealias Group<Row: QueryRow> = Rows4<Row>
@inline(__always) var rowsPerGroup: Int { 4 }

/// Two broadcasts at once would be a register too many where there are 16, and
/// an accumulator would live in memory: loads wait for the row before.
@inline(__always)
func held(_ p: UnsafePointer<Float>, until v: FloatVector) -> UnsafePointer<Float> {
  mla_after(p, v)
}
