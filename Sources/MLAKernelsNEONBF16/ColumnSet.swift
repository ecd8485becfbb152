import MLAShims

/// Vectors of columns as the register tile walks through them, in panels of fours:
///
///     vectors                 1     2     3     4     5
///     fours of queries        2    2+2   3+3
///     of values or weights    3     5    3+3   3+5   5+5
///
///     [panel][step][four]   two registers of two columns each
///
/// A panel that is wider than its columns has room for what is multiplied and read by nobody.
struct ColumnSet {
  let start: UnsafeMutablePointer<FloatVector>
  let vectors: Int
  let steps: Int
  /// Of the first panel and the second.
  private let fours: (Int, Int)

  @inline(__always)
  init(queries start: UnsafeMutablePointer<FloatVector>, vectors: Int, steps: Int) {
    (self.start, self.vectors, self.steps) = (start, vectors, steps)
    fours = vectors == 3 ? (3, 3) : (2, vectors == 2 ? 2 : 0)
  }

  /// The set that begins with vector `first` where that many columns lie set behind set: as many
  /// of three vectors as leave three, four or five.
  @inline(__always)
  init(
    of columns: Int, at start: UnsafeMutablePointer<FloatVector>, from first: Int, steps: Int
  ) {
    let left = MLAKernelsNEONBF16.vectors(of: columns) - first
    vectors = left > vectorsPerSet ? 3 : left
    (self.start, self.steps) = (start + 2 * first * steps, steps)
    switch vectors {
    case 1: fours = (3, 0)
    case 2: fours = (5, 0)
    case 3: fours = (3, 3)
    case 4: fours = (3, 5)
    default: fours = (5, 5)
    }
  }

  @inline(__always) var panels: Int { fours.1 == 0 ? 1 : 2 }

  @inline(__always)
  func panel(_ index: Int) -> (start: UnsafeMutablePointer<FloatVector>, fours: Int, first: Int) {
    index == 0 ? (start, fours.0, 0) : (start + steps * fours.0, fours.1, fours.0)
  }

  /// Where a four's steps begin, and how far each is behind the one before.
  @inline(__always)
  func four(_ index: Int) -> (start: UnsafeMutablePointer<FloatVector>, stride: Int) {
    let panel = panel(index < fours.0 ? 0 : 1)
    return (panel.start + (index - panel.first), panel.fours)
  }
}

/// Fours that this many columns take as sets of values or weights.
@inline(__always)
func fours(of columns: Int) -> Int {
  let vectors = vectors(of: columns)
  return vectors == 0 || vectors > 2 ? 2 * vectors : 2 * vectors + 1
}

@inline(__always)
func forEachSet(
  of columns: Int, at start: UnsafeMutablePointer<FloatVector>, steps: Int,
  _ body: (_ firstVector: Int, _ set: ColumnSet) -> Void
) {
  var first = 0
  while first < vectors(of: columns) {
    let set = ColumnSet(of: columns, at: start, from: first, steps: steps)
    body(first, set)
    first += set.vectors
  }
}

/// Products of a group of rows, [step][pair], with the columns of a panel, times `scale`: rows of
/// floats, `pitch` apart.
@inline(__always)
func multiply<Row: QueryRow>(
  _: Row.Type, _ columns: UnsafePointer<FloatVector>, _ group: UnsafePointer<RowPair>, steps: Int,
  times scale: FloatVector, into products: UnsafeMutablePointer<Float>, pitch: Int
) {
  let half = pairsPerGroup / 2
  if Row.width <= 3 {
    var (upper, lower) = (BlockTile<Row>.zero, BlockTile<Row>.zero)
    accumulate(&upper, &lower, columns, group, half: half, stride: pairsPerGroup, steps: steps)
    upper.storeRows(products, pitch: pitch, times: scale)
    lower.storeRows(products + 2 * half * pitch, pitch: pitch, times: scale)
  } else {
    for pair in stride(from: 0, to: pairsPerGroup, by: half) {
      var sums = BlockTile<Row>.zero
      accumulate(&sums, columns, group + pair, stride: pairsPerGroup, steps: steps)
      sums.storeRows(products + 2 * pair * pitch, pitch: pitch, times: scale)
    }
  }
}
