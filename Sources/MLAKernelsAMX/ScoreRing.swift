/// Where the scores of a panel's block are kept, by groups of keys: only the last
/// eight of them, which the L1 cache holds. Turning scores into probabilities may
/// lag eight groups behind, into the next product with values.
struct ScoreRing {
  private let start: UnsafeMutableRawPointer

  /// Groups that are kept; a power of two.
  @inline(__always) static var groups: Int { 8 }
  @inline(__always) static var bytes: Int { groups * TileScratch.scoreGroupBytes }

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer) { self.start = start }

  /// Scores [32 keys][32 queries] of a group.
  @inline(__always)
  func scores(_ group: Int) -> UnsafeMutablePointer<FloatVector> {
    (start + (group & (ScoreRing.groups - 1)) * TileScratch.scoreGroupBytes)
      .assumingMemoryBound(to: FloatVector.self)
  }

  /// Scores of two neighbouring keys.
  @inline(__always)
  func pair(_ pair: Int) -> UnsafePointer<FloatVector> {
    let inRing = pair & (ScoreRing.groups * pairsPerGroup - 1)
    return UnsafePointer(
      (start + inRing * 2 * TileScratch.rowBytes).assumingMemoryBound(to: FloatVector.self))
  }
}
