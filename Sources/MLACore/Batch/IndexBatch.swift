/// The tokens that keys are selected for, and which keys each of them sees.
struct IndexBatch: Sendable {
  private let queryStartLoc: RowOffsets
  /// Empty where nobody has any.
  private let contextLens: FixedArray<Int32>
  /// Of the rows that are worked on; empty: each sees its context and the tokens up to itself.
  private let visible: FixedArray<Int32>
  /// Those of q that are worked on, some of which may be no request's.
  private let rows: Range<Int>

  /// - Parameters: checked, so that no token sees more than there are.
  init(
    queryStartLoc: RowOffsets, contextLens: FixedArray<Int32>, visible: FixedArray<Int32>,
    rows: Range<Int>
  ) {
    (self.queryStartLoc, self.contextLens) = (queryStartLoc, contextLens)
    (self.visible, self.rows) = (visible, rows)
  }

  var requests: Range<Int> { 0..<queryStartLoc.requestCount }

  /// Those of a request that are worked on, of q.
  func rows(of request: Int) -> Range<Int> {
    let begin = queryStartLoc.begin(request)
    return (begin..<begin + queryStartLoc.count(request)).clamped(to: rows)
  }

  /// How many of its request's keys a row sees, the first ones.
  func visibleKeys(_ row: Int, of request: Int) -> Int {
    if !visible.isEmpty { return Int(visible[row - rows.lowerBound]) }
    let context = contextLens.isEmpty ? 0 : Int(contextLens[request])
    return context + row - queryStartLoc.begin(request) + 1
  }

  /// Most that some of its rows see.
  func visibleKeys(_ rows: Range<Int>, of request: Int) -> Int {
    if visible.isEmpty { return rows.last.map { visibleKeys($0, of: request) } ?? 0 }
    return rows.reduce(0) { max($0, visibleKeys($1, of: request)) }
  }

  var seesKeys: Bool { requests.contains { visibleKeys(rows(of: $0), of: $0) > 0 } }
}
