import MLAKernelABI
import MLAShims

/// Has the rows of the next call on their way while there is other work to do: rows anywhere
/// are none that a processor sees coming, and all at once it could not wait for.
struct NextRows {
  private var place: UnsafePointer<UnsafeRawPointer?>?
  private var left: Int
  private var offset = 0
  private let bytes: Int
  private let linesPerChunk: Int

  /// - Parameter chunks: how often lines are fetched; 0: there is nothing to be.
  @inline(__always)
  init(_ a: mla_attend_rows_args, chunks: Int) {
    (place, bytes) = (a.next, Int(a.next_bytes))
    left = chunks == 0 ? 0 : Int(a.num_next)
    linesPerChunk = left == 0 ? 0 : (left * ((bytes + 63) / 64) + chunks - 1) / chunks
  }

  @inline(__always)
  mutating func fetch() {
    for _ in 0..<linesPerChunk {
      guard left > 0, let row = place.unsafelyUnwrapped.pointee else { return }
      mla_prefetch_near(row + offset)
      offset += 64
      if offset >= bytes {
        (left, offset) = (left - 1, 0)
        place = place.unsafelyUnwrapped + 1
      }
    }
  }
}
