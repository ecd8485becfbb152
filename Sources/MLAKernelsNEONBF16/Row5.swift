/// Five fours, of values or weights, which are no multiple of three.
struct Row5: QueryRow {
  var low: Row3
  var high: Row2

  @inline(__always) static var width: Int { 5 }
  @inline(__always) static func repeating(_ v: FloatVector) -> Row5 {
    Row5(low: .repeating(v), high: .repeating(v))
  }
  @inline(__always) static func load(_ p: UnsafePointer<FloatVector>) -> Row5 {
    Row5(low: .load(p), high: .load(p + Row3.width))
  }
  @inline(__always) func store(_ p: UnsafeMutablePointer<FloatVector>) {
    low.store(p)
    high.store(p + Row3.width)
  }
  @inline(__always) func combined(_ o: Row5, _ f: (FloatVector, FloatVector) -> FloatVector)
    -> Row5
  { Row5(low: low.combined(o.low, f), high: high.combined(o.high, f)) }
  @inline(__always) func mapped(_ f: (FloatVector) -> FloatVector) -> Row5 {
    Row5(low: low.mapped(f), high: high.mapped(f))
  }
}
