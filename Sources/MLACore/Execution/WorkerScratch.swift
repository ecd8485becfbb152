/// What each worker has to itself, one behind the other.
struct WorkerScratch {
  let workers: Int
  private let offset: Int
  private let stride: Int

  /// - Parameters:
  ///   - bytes: of one worker.
  ///   - offset: where the first one's begins.
  init(workers: Int, bytes: Int, at offset: Int) {
    self.workers = workers
    self.offset = offset
    // Neighbours' first lines must not fall into the same cache sets.
    stride = alignedUp(bytes) + 3 * memoryAlignment
  }

  var end: Int { offset + workers * stride }

  func of(_ worker: Int, _ start: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
    start + (offset + worker * stride)
  }
}
