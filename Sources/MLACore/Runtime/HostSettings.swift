import CMLAPrefill

/// What the host has set for the whole process.
public enum HostSettings {
  public static let maximumThreads = 1024

  /// A parallel loop of the host's own, to be used instead of the pool.
  struct ParallelFor {
    let function: @convention(c) (
      UnsafeMutableRawPointer?, Int64, mla_parallel_task?, UnsafeMutableRawPointer?
    ) -> Void
    let context: UnsafeMutableRawPointer?
  }

  private struct State {
    var threads: Int?
    var parallelFor: ParallelFor?
  }

  private static let state = Guarded(State())

  /// Threads that a run uses, the calling one included.
  public static var threads: Int {
    state.withLock { $0.threads } ?? min(HostLimits.processors, maximumThreads)
  }

  /// 0 goes back to the default, as it is now.
  public static func setThreads(_ count: Int32) throws(MLAError) {
    guard count >= 0, count <= maximumThreads else {
      throw .invalid("num_threads", count, "must be 0 to \(maximumThreads)")
    }
    if count == 0 { HostLimits.find() }
    state.withLock { $0.threads = count == 0 ? nil : Int(count) }
    Workers.renew()
  }

  /// NULL goes back to the pool. Loops under way finish with the old one.
  public static func setParallelFor(
    _ function: mla_parallel_for?, context: UnsafeMutableRawPointer?
  ) {
    let loop = function.map { ParallelFor(function: $0, context: context) }
    state.withLock { $0.parallelFor = loop }
  }

  static var parallelFor: ParallelFor? { state.withLock { $0.parallelFor } }
}
