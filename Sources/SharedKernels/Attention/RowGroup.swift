import MLAShims

extension QueryRow {
  /// self + q * b, one operand step of a dot product.
  @inline(__always) func addingDot(_ q: Self, _ b: Float) -> Self {
    combined(q) { addDot($0, $1, b) }
  }
  /// `p`, for loads that are not to be moved before this row is known.
  @inline(__always) func after(_ p: UnsafePointer<Float>) -> UnsafePointer<Float> {
    var p = p
    _ = mapped {
      p = held(p, until: $0)
      return $0
    }
    return p
  }
}

/// The register tile: as many rows as the register file holds beside one row of
/// operands, accumulated together so that a loaded operand serves all of them.
protocol RowGroup {
  associatedtype Row: QueryRow
  associatedtype Places
  /// Rows in the group.
  static var count: Int { get }
  static func repeating(_ row: Row) -> Self
  /// Rows `stride` vectors apart.
  static func load(_ p: UnsafePointer<FloatVector>, stride: Int) -> Self
  func store(_ p: UnsafeMutablePointer<FloatVector>, stride: Int)
  /// Row r gains q * b[r].
  mutating func addDot(_ q: Row, _ b: UnsafePointer<Float>)
  /// Row r gains q times the operand of that number at places r.
  mutating func addDot(_ q: Row, at places: Places, _ step: Int)
  /// As `addDot`, of the rows behind row `first`, and of that one with the first element of
  /// each operand of q alone. `first` is one of the group or before them.
  mutating func addDot(_ q: Row, _ b: UnsafePointer<Float>, from first: Int)
  func mapped(_ f: (Row) -> Row) -> Self
  /// Row r times b[r].
  func scaled(by b: UnsafePointer<Float>) -> Self
  /// `f` of what was so far, each of the first rows in turn, and its number from `first` on.
  func folded(into start: Row, rows: Int, first: Int, _ f: (Row, Row, Int) -> Row) -> Row
}

/// Where the operands of a group's rows begin.
struct Places4 {
  let p0, p1, p2, p3: UnsafePointer<Float>

  @inline(__always)
  init(_ places: UnsafePointer<UnsafePointer<Float>>) {
    (p0, p1, p2, p3) = (places[0], places[1], places[2], places[3])
  }
}

struct Places8 {
  let low, high: Places4

  @inline(__always)
  init(_ places: UnsafePointer<UnsafePointer<Float>>) {
    (low, high) = (Places4(places), Places4(places + 4))
  }
}

/// 4 x 3 accumulators, 3 operands and a broadcast: 16 registers (AVX2, SSE2).
struct Rows4<Row: QueryRow>: RowGroup {
  var r0: Row
  var r1: Row
  var r2: Row
  var r3: Row

  @inline(__always) static var count: Int { 4 }

  @inline(__always) static func repeating(_ row: Row) -> Rows4 {
    Rows4(r0: row, r1: row, r2: row, r3: row)
  }

  @inline(__always) static func load(_ p: UnsafePointer<FloatVector>, stride w: Int) -> Rows4 {
    Rows4(
      r0: Row.load(p), r1: Row.load(p + w), r2: Row.load(p + 2 * w), r3: Row.load(p + 3 * w))
  }

  @inline(__always) func store(_ p: UnsafeMutablePointer<FloatVector>, stride w: Int) {
    r0.store(p)
    r1.store(p + w)
    r2.store(p + 2 * w)
    r3.store(p + 3 * w)
  }

  /// Row by row, see `held`.
  @inline(__always) mutating func addDot(_ q: Row, _ b: UnsafePointer<Float>) {
    r0 = r0.addingDot(q, mla_of_four(b, 0))
    r1 = r1.addingDot(q, mla_of_four(r0.after(b), 1))
    r2 = r2.addingDot(q, mla_of_four(r1.after(b), 2))
    r3 = r3.addingDot(q, mla_of_four(r2.after(b), 3))
  }

  @inline(__always) mutating func addDot(_ q: Row, at places: Places4, _ step: Int) {
    r0 = r0.addingDot(q, mla_of_one(places.p0 + step))
    r1 = r1.addingDot(q, mla_of_one(r0.after(places.p1) + step))
    r2 = r2.addingDot(q, mla_of_one(r1.after(places.p2) + step))
    r3 = r3.addingDot(q, mla_of_one(r2.after(places.p3) + step))
  }

  @inline(__always)
  mutating func addDot(_ q: Row, _ b: UnsafePointer<Float>, from first: Int) {
    let element = q.mapped(firstElements)
    if first <= 1 {
      if first <= 0 { r0 = r0.addingDot(first == 0 ? element : q, b[0]) }
      r1 = r1.addingDot(first == 1 ? element : q, b[1])
    }
    if first <= 2 { r2 = r2.addingDot(first == 2 ? element : q, b[2]) }
    r3 = r3.addingDot(first == 3 ? element : q, b[3])
  }

  @inline(__always) func mapped(_ f: (Row) -> Row) -> Rows4 {
    Rows4(r0: f(r0), r1: f(r1), r2: f(r2), r3: f(r3))
  }

  @inline(__always) func scaled(by b: UnsafePointer<Float>) -> Rows4 {
    Rows4(
      r0: r0.mapped { $0 * b[0] }, r1: r1.mapped { $0 * b[1] }, r2: r2.mapped { $0 * b[2] },
      r3: r3.mapped { $0 * b[3] })
  }

  @inline(__always)
  func folded(into start: Row, rows: Int, first: Int, _ f: (Row, Row, Int) -> Row) -> Row {
    var result = start
    if rows > 0 { result = f(result, r0, first) }
    if rows > 1 { result = f(result, r1, first + 1) }
    if rows > 2 { result = f(result, r2, first + 2) }
    if rows > 3 { result = f(result, r3, first + 3) }
    return result
  }
}

/// 8 x 3 accumulators and 3 operands, broadcasts folded into the
/// multiplication: 27 of AVX-512's 32 registers.
struct Rows8<Row: QueryRow>: RowGroup {
  var low: Rows4<Row>
  var high: Rows4<Row>

  @inline(__always) static var count: Int { 8 }

  @inline(__always) static func repeating(_ row: Row) -> Rows8 {
    Rows8(low: .repeating(row), high: .repeating(row))
  }

  @inline(__always) static func load(_ p: UnsafePointer<FloatVector>, stride: Int) -> Rows8 {
    Rows8(low: .load(p, stride: stride), high: .load(p + 4 * stride, stride: stride))
  }

  @inline(__always) func store(_ p: UnsafeMutablePointer<FloatVector>, stride: Int) {
    low.store(p, stride: stride)
    high.store(p + 4 * stride, stride: stride)
  }

  @inline(__always) mutating func addDot(_ q: Row, _ b: UnsafePointer<Float>) {
    low.addDot(q, b)
    high.addDot(q, b + 4)
  }

  @inline(__always) mutating func addDot(_ q: Row, at places: Places8, _ step: Int) {
    low.addDot(q, at: places.low, step)
    high.addDot(q, at: places.high, step)
  }

  @inline(__always)
  mutating func addDot(_ q: Row, _ b: UnsafePointer<Float>, from first: Int) {
    if first < 4 { low.addDot(q, b, from: first) }
    high.addDot(q, b + 4, from: first - 4)
  }

  @inline(__always) func mapped(_ f: (Row) -> Row) -> Rows8 {
    Rows8(low: low.mapped(f), high: high.mapped(f))
  }

  @inline(__always) func scaled(by b: UnsafePointer<Float>) -> Rows8 {
    Rows8(low: low.scaled(by: b), high: high.scaled(by: b + 4))
  }

  @inline(__always)
  func folded(into start: Row, rows: Int, first: Int, _ f: (Row, Row, Int) -> Row) -> Row {
    let result = low.folded(into: start, rows: rows, first: first, f)
    return high.folded(into: result, rows: rows - 4, first: first + 4, f)
  }
}

/// The inner loop of every product: `steps` operands of a group of rows, side by side
/// and `operandStride` from one step to the next, against as many rows of columns,
/// `stride` vectors apart.
@inline(__always)
func accumulate<G: RowGroup>(
  _ sums: inout G, _ columns: UnsafePointer<FloatVector>, stride: Int,
  _ panel: UnsafePointer<Float>, operandStride: Int = G.count, steps: Int
) {
  var column = columns
  var operand = panel
  for _ in 0..<steps {
    sums.addDot(G.Row.load(column), operand)
    column += stride
    operand += operandStride
  }
}

/// The same for two groups whose operands are `pitch` apart: where a row is a single
/// vector, one group would wait for its own sums.
@inline(__always)
func accumulate<G: RowGroup>(
  _ sums: inout G, _ more: inout G, _ columns: UnsafePointer<FloatVector>, stride: Int,
  _ panel: UnsafePointer<Float>, pitch: Int, steps: Int
) {
  var column = columns
  var operand = panel
  for _ in 0..<steps {
    let row = G.Row.load(column)
    sums.addDot(row, operand)
    more.addDot(row, operand + pitch)
    column += stride
    operand += G.count
  }
}
