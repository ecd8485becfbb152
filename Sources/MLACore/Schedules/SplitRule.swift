/// Whether the keys of a request are cut into ranges that are worked on in
/// parallel and merged afterwards (split-KV). It pays where few queries face a
/// long context: their tiles alone are too few tasks. Very long requests are cut in
/// any case, so that what a run must hold of them has a bound.
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
  /// A whole one outweighs merging its result by far.
  public static let longestRange = 8192
  /// What a range's packed keys and values of one head take, at most: the last cache holds them
  /// while tile after tile attends to them, each thread its own. Of what servers have of it for
  /// a core, 2 to 4 MiB, and neighbours take some.
  static let rangeBytes = 3 << 20

  /// Keys of each range, a multiple of `keyBlock`; all of the request's keys or
  /// more if it is not split.
  func keysPerRange(_ span: RequestSpan, tilesPerHead: Int, _ shape: TileShape) -> Int {
    let keyBlock = shape.keyBlock
    let blocks = max(1, (span.keyCount + keyBlock - 1) / keyBlock)
    let shortest = max(1, Self.shortestRange / keyBlock)
    let longest = max(
      1, min(Self.longestRange / keyBlock, Self.rangeBytes / shape.packedBlockBytes))
    let fewest = (blocks + longest - 1) / longest
    if self == .fixedRanges, tilesPerHead <= Self.mostTilesToSplit { return shortest * keyBlock }
    let ranges = max(fewest, min(wantedRanges(tilesPerHead), blocks / shortest))
    return (blocks + ranges - 1) / ranges * keyBlock
  }

  private func wantedRanges(_ tilesPerHead: Int) -> Int {
    guard case .byCost(let numHeads) = self else { return 1 }
    let tasks = max(1, tilesPerHead * numHeads)
    return (Self.nominalTasks + tasks - 1) / tasks
  }
}
