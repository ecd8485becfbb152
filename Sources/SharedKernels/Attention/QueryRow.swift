import MLAShims

/// One to three vectors side by side: the same element of `lanes * width`
/// neighbouring queries, or as many value dimensions of a key. Kernels are written
/// once over the width; a panel of few queries then costs no more than it must.
protocol QueryRow {
  /// Vectors in the row.
  static var width: Int { get }
  static func repeating(_ value: FloatVector) -> Self
  static func load(_ p: UnsafePointer<FloatVector>) -> Self
  func store(_ p: UnsafeMutablePointer<FloatVector>)
  /// Lane by lane over the vectors of this row and another.
  func combined(_ other: Self, _ f: (FloatVector, FloatVector) -> FloatVector) -> Self
  func mapped(_ f: (FloatVector) -> FloatVector) -> Self
}

struct Row1: QueryRow {
  var a: FloatVector

  @inline(__always) static var width: Int { 1 }
  @inline(__always) static func repeating(_ v: FloatVector) -> Row1 { Row1(a: v) }
  @inline(__always) static func load(_ p: UnsafePointer<FloatVector>) -> Row1 { Row1(a: p[0]) }
  @inline(__always) func store(_ p: UnsafeMutablePointer<FloatVector>) { p[0] = a }
  @inline(__always) func combined(_ o: Row1, _ f: (FloatVector, FloatVector) -> FloatVector)
    -> Row1
  { Row1(a: f(a, o.a)) }
  @inline(__always) func mapped(_ f: (FloatVector) -> FloatVector) -> Row1 { Row1(a: f(a)) }
}

struct Row2: QueryRow {
  var a: FloatVector
  var b: FloatVector

  @inline(__always) static var width: Int { 2 }
  @inline(__always) static func repeating(_ v: FloatVector) -> Row2 { Row2(a: v, b: v) }
  @inline(__always) static func load(_ p: UnsafePointer<FloatVector>) -> Row2 {
    Row2(a: p[0], b: p[1])
  }
  @inline(__always) func store(_ p: UnsafeMutablePointer<FloatVector>) {
    p[0] = a
    p[1] = b
  }
  @inline(__always) func combined(_ o: Row2, _ f: (FloatVector, FloatVector) -> FloatVector)
    -> Row2
  { Row2(a: f(a, o.a), b: f(b, o.b)) }
  @inline(__always) func mapped(_ f: (FloatVector) -> FloatVector) -> Row2 {
    Row2(a: f(a), b: f(b))
  }
}

struct Row3: QueryRow {
  var a: FloatVector
  var b: FloatVector
  var c: FloatVector

  @inline(__always) static var width: Int { 3 }
  @inline(__always) static func repeating(_ v: FloatVector) -> Row3 { Row3(a: v, b: v, c: v) }
  @inline(__always) static func load(_ p: UnsafePointer<FloatVector>) -> Row3 {
    Row3(a: p[0], b: p[1], c: p[2])
  }
  @inline(__always) func store(_ p: UnsafeMutablePointer<FloatVector>) {
    p[0] = a
    p[1] = b
    p[2] = c
  }
  @inline(__always) func combined(_ o: Row3, _ f: (FloatVector, FloatVector) -> FloatVector)
    -> Row3
  { Row3(a: f(a, o.a), b: f(b, o.b), c: f(c, o.c)) }
  @inline(__always) func mapped(_ f: (FloatVector) -> FloatVector) -> Row3 {
    Row3(a: f(a), b: f(b), c: f(c))
  }
}
