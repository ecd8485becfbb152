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
  /// self + q * b, one operand step of a dot product.
  func addingDot(_ q: Self, _ b: Float) -> Self
  /// `p`, for loads that are not to be moved before this row is known.
  func after(_ p: UnsafePointer<Float>) -> UnsafePointer<Float>
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
  @inline(__always) func addingDot(_ q: Row1, _ b: Float) -> Row1 { Row1(a: addDot(a, q.a, b)) }
  @inline(__always) func after(_ p: UnsafePointer<Float>) -> UnsafePointer<Float> {
    held(p, until: a)
  }
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
  @inline(__always) func addingDot(_ q: Row2, _ k: Float) -> Row2 {
    Row2(a: addDot(a, q.a, k), b: addDot(b, q.b, k))
  }
  @inline(__always) func after(_ p: UnsafePointer<Float>) -> UnsafePointer<Float> {
    held(held(p, until: a), until: b)
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
  @inline(__always) func addingDot(_ q: Row3, _ k: Float) -> Row3 {
    Row3(a: addDot(a, q.a, k), b: addDot(b, q.b, k), c: addDot(c, q.c, k))
  }
  @inline(__always) func after(_ p: UnsafePointer<Float>) -> UnsafePointer<Float> {
    held(held(held(p, until: a), until: b), until: c)
  }
}
