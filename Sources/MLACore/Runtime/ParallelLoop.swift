import MLAShims

/// Runs a loop's iterations on several threads: the host's own, if it has set a
/// parallel_for, else the library's pool.
public enum ParallelLoop {
  /// Calls `body` once for each index in 0 ..< workers and returns when all have
  /// returned.
  ///
  /// Iterations may run in any order, even one after the other on the calling
  /// thread: none may wait for another. What an iteration runs in parallel again
  /// runs on its own thread.
  public static func run(workers: Int, _ body: (Int) -> Void) {
    guard workers > 1, workers <= maximumIterations, mla_shim_thread().pointee.loops == 0 else {
      return runAlone(workers, body)
    }
    mla_shim_thread().pointee.loops += 1
    defer { mla_shim_thread().pointee.loops -= 1 }
    if let host = HostSettings.parallelFor {
      withPointer(to: body) { HostLoop.run(workers, $0, on: host) }
    } else if let pool = WorkerPool.take() {
      withPointer(to: body) { pool.run(workers, $0) }
    } else {
      runAlone(workers, body)
    }
  }

  /// What a loop's ticket can count.
  private static let maximumIterations = 0xffff

  private static func runAlone(_ workers: Int, _ body: (Int) -> Void) {
    var index = 0
    while index < workers {
      body(index)
      index += 1
    }
  }

  /// Other threads reach a closure through its address; it does not outlive the loop.
  /// Their arithmetic is what they were created with, or their host's.
  private static func withPointer(
    to body: (Int) -> Void, _ use: (UnsafePointer<WorkerPool.Body>) -> Void
  ) {
    withoutActuallyEscaping(body) { body in
      withUnsafePointer(to: { piece in Arithmetic.own { body(piece) } }) { use($0) }
    }
  }
}
