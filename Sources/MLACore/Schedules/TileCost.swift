/// How long work takes, in units of one query attending to one key of one head.
/// Measured with AVX512_BF16; decides who works on what, never on what is
/// computed, so other kernels' ratios may differ.
enum TileCost {
  /// Packing a key and its value.
  static let key = 25
  /// Adding one row of partial results.
  static let partial = 8
  /// Packing a query, dividing and writing its result.
  static let query = 25

  static func of(_ segment: TileSchedule.Segment, isCausal: Bool) -> Int {
    let (queries, keys) = (segment.span.queryCount, segment.span.keyCount)
    let unseen = isCausal ? queries * (queries - 1) / 2 : 0
    let pairs = max(0, queries * keys - unseen)
    return segment.heads.count * (pairs + key * keys + query * queries)
  }
}
