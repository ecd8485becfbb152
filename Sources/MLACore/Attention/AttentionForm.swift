/// How the heads of a request are worked on that share a head of keys. Both forms give the
/// same result within rounding.
enum AttentionForm: Equatable, Sendable {
  /// Tiles of one head's queries; keys are packed once for all of them.
  case byHead
  /// Tiles of all heads' queries, of a few tokens; each tile's keys are packed anew.
  case byGroup

  /// What costs less: a matter of the request alone, so that its bits are.
  static func of(_ span: RequestSpan, headsPerKeyHead: Int) -> AttentionForm {
    byGroup(span, headsPerKeyHead) < byHead(span, headsPerKeyHead) ? .byGroup : .byHead
  }

  // Costs of a head of keys, in those of one query attending to one key.

  private static func byHead(_ span: RequestSpan, _ heads: Int) -> Int {
    let rows = saturatingProduct(filled(span.queryCount), heads)
    return saturatingProduct(span.keyCount, saturatingSum(TileCost.key, rows))
  }

  private static func byGroup(_ span: RequestSpan, _ heads: Int) -> Int {
    let most = SharedKeySchedule.mostTokensPerTile(numHeads: heads)
    let tiles = (span.queryCount + most - 1) / most
    let tokens = (span.queryCount + tiles - 1) / tiles
    let all = saturatingProduct(tiles, TileCost.key + filled(tokens * heads))
    // Each token's heads by themselves meet keys that not all tokens see.
    let more = span.keysSeen(by: span.queryCount - 1) - span.keysSeen(by: 0)
    let some = saturatingProduct(filled(heads), saturatingProduct(more, tokens) / 2)
    return saturatingSum(saturatingProduct(span.keyCount, all), some)
  }

  /// Rows with those that only fill up vectors: of sixteen lanes, as most kernels have them.
  private static func filled(_ rows: Int) -> Int { (rows + 15) / 16 * 16 }
}
