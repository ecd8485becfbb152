/// What to fetch while up to `lanes` rows from `row` on are read: as many behind them,
/// or, behind the last of `count` rows, those that come `next`, if that is known.
@inline(__always)
func rowsAhead(
  _ rows: UnsafeRawPointer, from row: Int, of count: Int, rowStride: Int,
  next: UnsafeRawPointer? = nil
) -> UnsafeRawPointer {
  let behind = rows + (row + lanes) * rowStride
  return row + lanes < count ? behind : next ?? behind
}
