import MLAShims

/// One to three vectors of columns as the register tile walks through them, in panels of fours:
///
///     vectors of columns    1     2      3
///     fours in its panels   2    2+2    3+3
///
///     [panel][step][four]   two registers of two columns each
struct ColumnSet {
  let start: UnsafeMutablePointer<FloatVector>
  let vectors: Int
  let steps: Int

  @inline(__always)
  init(_ start: UnsafeMutablePointer<FloatVector>, vectors: Int, steps: Int) {
    (self.start, self.vectors, self.steps) = (start, vectors, steps)
  }

  /// The set that begins with vector `first` where that many columns lie set behind set, as many
  /// of three vectors as there are.
  @inline(__always)
  init(
    of columns: Int, at start: UnsafeMutablePointer<FloatVector>, from first: Int, steps: Int
  ) {
    self.init(
      start + 2 * first * steps,
      vectors: min(vectorsPerPanel, MLAKernelsNEONBF16.vectors(of: columns) - first), steps: steps)
  }

  /// In a panel.
  @inline(__always) var fours: Int { vectors == 3 ? 3 : 2 }
  @inline(__always) var panels: Int { vectors == 1 ? 1 : 2 }

  @inline(__always)
  func panel(_ index: Int) -> UnsafeMutablePointer<FloatVector> { start + index * steps * fours }

  @inline(__always)
  func four(_ index: Int, step: Int) -> UnsafeMutablePointer<FloatVector> {
    panel(index / fours) + (step * fours + index % fours)
  }
}

@inline(__always)
func forEachSet(
  of columns: Int, at start: UnsafeMutablePointer<FloatVector>, steps: Int,
  _ body: (_ firstVector: Int, _ set: ColumnSet) -> Void
) {
  for first in stride(from: 0, to: vectors(of: columns), by: vectorsPerPanel) {
    body(first, ColumnSet(of: columns, at: start, from: first, steps: steps))
  }
}

/// Products of a group of rows, [step][pair], with the columns of a set, times `scale`: rows of
/// floats, `pitch` apart.
@inline(__always)
func multiply<Row: QueryRow>(
  _: Row.Type, _ columns: UnsafePointer<FloatVector>, _ group: UnsafePointer<RowPair>, steps: Int,
  times scale: FloatVector, into products: UnsafeMutablePointer<Float>, pitch: Int
) {
  var sums = BlockTile<Row>.zero
  accumulate(&sums, columns, group, stride: pairsPerGroup, half: 2, steps: steps)
  sums.storeRows(products, pitch: pitch, times: scale)
}
