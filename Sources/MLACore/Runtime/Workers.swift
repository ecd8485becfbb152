import Glibc
import MLAShims

/// The threads of all pools: how they come to be, and where they run.
enum Workers {
  private struct State {
    var threads: [Int32] = []
    /// Where they were put, if not where their creators run.
    var place: ProcessorSet?
    /// Until then no thread is tried, as the last one could not be had,
    var retryTime = 0
    /// which has been said.
    var isShortageKnown = false
  }

  private static let state = PerProcess(State())

  static var threads: [Int32] { state.withLock { $0.threads } }

  /// The host has set how many threads it wants: those that there are go where the process
  /// may run now, others may be tried again, and missed aloud.
  static func renew() {
    state.withLock { ($0.retryTime, $0.isShortageKnown) = (0, false) }
    if !threads.isEmpty { place() }
  }

  /// Lets all threads, later ones too, run where the process may now.
  private static func place() {
    let place = ProcessorSet.process
    let moved: [Int32] = state.withLock { state in
      if place.count == 0 || state.place == place { return [] }
      state.place = place
      return state.threads
    }
    for thread in moved { place.apply(to: thread) }
  }

  /// Starts threads that run `pool.work()`; returns how many could be had.
  ///
  /// - Parameter earlier: those that the pool has.
  static func start(_ count: Int, after earlier: Int, for pool: WorkerPool) -> Int {
    if state.withLock({ $0.retryTime > 0 && MonotonicClock.nanoseconds < $0.retryTime }) { return 0 }
    place()
    for started in 0..<count {
      if start(Start(pool: pool, number: earlier + started + 1)) { continue }
      let isNews = state.withLock { state in
        defer {
          state.retryTime = MonotonicClock.nanoseconds + retryNanoseconds
          state.isShortageKnown = true
        }
        return !state.isShortageKnown
      }
      if isNews {
        Log.warning(
          "only \(earlier + started + 1) of \(earlier + count + 1) threads could be started: "
            + "they do the work of all")
      }
      return started
    }
    state.withLock { ($0.retryTime, $0.isShortageKnown) = (0, false) }
    return count
  }

  private static let retryNanoseconds = 10_000_000_000
}

// MARK: - One thread

extension Workers {
  private final class Start {
    let pool: WorkerPool
    let number: Int

    init(pool: WorkerPool, number: Int) { (self.pool, self.number) = (pool, number) }

    func run() {
      mla_shim_name_thread("mla-prefill/\(number % 1000)")
      let thread = mla_shim_thread_id()
      let place = Workers.state.withLock { state in
        state.threads.append(thread)
        return state.place
      }
      place?.apply()
      pool.work()
    }
  }

  private static func start(_ start: Start) -> Bool {
    var attributes = pthread_attr_t()
    guard pthread_attr_init(&attributes) == 0 else { return false }
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, 4 << 20)
    let retained = Unmanaged.passRetained(start)
    var thread = pthread_t()
    let status = withSignalsBlocked {
      pthread_create(
        &thread, &attributes,
        { argument in
          guard let argument else { return nil }
          Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().run()
          return nil
        }, retained.toOpaque())
    }
    if status != 0 { retained.release() }
    return status == 0
  }

  /// Workers inherit a mask without the host's signals, whose handlers expect its
  /// own threads; a fault must still reach the host's crash reporter.
  private static func withSignalsBlocked(_ body: () -> Int32) -> Int32 {
    var blocked = sigset_t()
    var previous = sigset_t()
    sigfillset(&blocked)
    for fault in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS] { sigdelset(&blocked, fault) }
    pthread_sigmask(SIG_SETMASK, &blocked, &previous)
    defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }
    return body()
  }
}
