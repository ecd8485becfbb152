import Synchronization

/// Hands out the pieces of one parallel loop after another, each once.
///
/// Loop, size and next piece share one word, so that a thread that comes late
/// can never take a piece of a loop it has not seen: whoever takes a piece knows
/// that its loop stays until that piece is done.
struct LoopTicket: @unchecked Sendable {
  /// High to low: number of the loop (32 bits), its pieces (16), next piece (16).
  private let word = onOwnLine(Atomic<UInt64>(0))

  /// Opens the next loop; the one before must be finished.
  func open(pieces: Int) {
    let loop = (word.pointee.load(ordering: .relaxed) >> 32) &+ 1
    word.pointee.store(loop << 32 | UInt64(pieces) << 16, ordering: .sequentiallyConsistent)
  }

  var hasPieces: Bool { Self.hasPieces(word.pointee.load(ordering: .sequentiallyConsistent)) }

  /// Of the loop opened last.
  var pieces: Int { Int(word.pointee.load(ordering: .relaxed) >> 16 & 0xffff) }

  func take() -> Int? {
    var current = word.pointee.load(ordering: .relaxed)
    while Self.hasPieces(current) {
      let (taken, original) = word.pointee.compareExchange(
        expected: current, desired: current &+ 1, ordering: .acquiringAndReleasing)
      if taken { return Int(current & 0xffff) }
      current = original
    }
    return nil
  }

  private static func hasPieces(_ word: UInt64) -> Bool { word & 0xffff < word >> 16 & 0xffff }
}
