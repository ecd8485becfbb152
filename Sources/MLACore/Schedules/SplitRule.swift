/// Whether the keys of a request are cut into ranges that are worked on in
/// parallel and merged afterwards (split-KV). It pays where few queries face a
/// long context: their tiles alone are too few tasks.
///
/// The answer depends on the request, and at most on the number of heads, never
/// on the threads or the rest of the batch: the bits of a result must not.
public enum SplitRule: Equatable, Sendable {
  /// FlashAttention's tile schedule.
  case never
  /// FlashInfer's plan: ranges of fixed length, wherever a request has at most
  /// a few tiles.
  case fixedRanges
  /// As many ranges as make `nominalTasks` tasks of all heads and tiles.
  case byCost(numHeads: Int)

  /// Below this a range's work does not outweigh writing and merging its result.
  static let shortestRange = 1024
  /// More tiles than this keep the threads of a large host busy unsplit.
  static let mostTilesToSplit = 4
  static let nominalTasks = 512

  /// Keys of each range, a multiple of `keyBlock`; all of the request's keys or
  /// more if it is not split.
  func keysPerSplit(_ span: RequestSpan, tilesPerHead: Int, keyBlock: Int) -> Int {
    let blocks = max(1, (span.keyCount + keyBlock - 1) / keyBlock)
    let shortest = max(1, Self.shortestRange / keyBlock)
    switch self {
    case .never: return blocks * keyBlock
    case .fixedRanges:
      return (tilesPerHead <= Self.mostTilesToSplit ? shortest : blocks) * keyBlock
    case .byCost(let numHeads):
      let tasks = max(1, tilesPerHead * numHeads)
      let wanted = (Self.nominalTasks + tasks - 1) / tasks
      let ranges = max(1, min(wanted, blocks / shortest))
      return (blocks + ranges - 1) / ranges * keyBlock
    }
  }
}
