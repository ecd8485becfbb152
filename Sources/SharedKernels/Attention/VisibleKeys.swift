/// Which of a block's keys which queries see.
///
/// Scores of a group of keys that is hidden from all queries of the first vectors are
/// computed for the others only:
///
///                 vector  0  1  2
///     groups below end(0)  x  x  x      keys that some query of each vector sees
///     groups below end(1)     x  x
///     the other groups           x
///
/// What is left out is what `maskScores` makes -inf, of which 0 remains.
struct VisibleKeys {
  let keys: Int
  /// The block's first key, counted from query 0's own.
  let firstKey: Int

  /// Keys that a query sees.
  @inline(__always)
  func count(to query: Int) -> Int { max(0, min(keys, query + 1 - firstKey)) }

  private var groups: Int { (keys + rowsPerGroup - 1) / rowsPerGroup }

  /// Groups of keys whose scores the vectors behind the first `hidden` need.
  @inline(__always)
  func groups(hidden: Int, of width: Int) -> Range<Int> {
    let begin = hidden == 0 ? 0 : end(hidden - 1)
    return begin..<(hidden == width - 1 ? groups : end(hidden))
  }

  /// The first group that vector `vector` sees nothing of.
  @inline(__always)
  private func end(_ vector: Int) -> Int {
    let keys = max(0, (vector + 1) * lanes - firstKey)
    return min(groups, (keys + rowsPerGroup - 1) / rowsPerGroup)
  }
}
