/// Where the scores of a panel's block are kept, by groups of keys: only the last
/// eight of them, which the L1 cache holds, until it shows that a block's first
/// scores may be wanted once more when its last ones are known.
struct ScoreRing {
  private let start: UnsafeMutableRawPointer
  /// Groups that are kept; a power of two. Turning scores into probabilities may
  /// lag eight groups behind, into the next product with values.
  private(set) var groups = 8

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer) { self.start = start }

  /// From now on all of a block. The first eight groups stay where they are.
  @inline(__always)
  mutating func keepBlock() { groups = groupsPerBlock }

  /// Scores [32 keys][32 queries] of a group.
  @inline(__always)
  func scores(_ group: Int) -> UnsafeMutablePointer<FloatVector> {
    (start + (group & (groups - 1)) * TileScratch.scoreGroupBytes)
      .assumingMemoryBound(to: FloatVector.self)
  }

  /// Scores of two neighbouring keys.
  @inline(__always)
  func pair(_ pair: Int) -> UnsafePointer<FloatVector> {
    let inRing = pair & (groups * pairsPerGroup - 1)
    return UnsafePointer(
      (start + inRing * 2 * TileScratch.rowBytes).assumingMemoryBound(to: FloatVector.self))
  }
}
