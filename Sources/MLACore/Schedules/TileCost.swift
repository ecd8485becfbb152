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

  /// What each thread must have to do if waking them is to pay: 30 us of work. One that
  /// sleeps takes up to 100 us to come, and in that time the caller does what it would
  /// have done.
  static let leastPerThread = 20_000

  /// From which on it hardly matters what taking a group of units costs, and that
  /// nobody has fetched the first one's rows ahead: 25 us.
  static let leastPerGroup = 16_000

  /// Of one head of keys of a request, and of all heads of queries that look at it.
  static func ofHead(_ span: RequestSpan, headsPerKeyHead: Int = 1) -> Int {
    let queries = saturatingSum(span.pairs, query * span.queryCount)
    // A percentage of the sum over 2^24 pairs of request and head must not overflow;
    // which of two such numbers is larger, nobody needs to know.
    let cost = saturatingSum(saturatingProduct(queries, headsPerKeyHead), key * span.keyCount)
    return min(cost, 1 << 32)
  }

  /// How many of the threads a batch has work for.
  static func threads(
    _ spans: some Sequence<RequestSpan>, numHeads: Int, headsPerKeyHead: Int = 1,
    atMost limit: Int
  ) -> Int {
    var cost = 0
    for span in spans where span.queryCount > 0 {
      cost += numHeads * ofHead(span, headsPerKeyHead: headsPerKeyHead)
      guard cost / leastPerThread < limit else { return limit }
    }
    return max(1, cost / leastPerThread)
  }
}
