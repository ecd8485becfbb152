import MLAShims
import Synchronization

/// Threads that run the pieces of one parallel loop at a time, the caller's
/// thread among them.
///
/// A worker takes pieces as long as there are any, watches for the next loop for
/// a moment, then sleeps: loops that follow each other closely cost about a
/// microsecond, an idle pool costs nothing. A piece belongs to no worker, so a
/// loop never waits for one that is slow to wake or could not be started.
final class WorkerPool: @unchecked Sendable {
  typealias Body = (Int) -> Void

  private static let pools = PerProcess<[WorkerPool]>([])
  /// Loops of as many host threads run side by side; a further one's runs on its
  /// own thread alone.
  private static let maximumPools = 4

  /// A pool that is in no loop, for the caller's next `run`, or nil.
  ///
  /// A forked child leaves its parent's pools alone: they may have been in the middle of
  /// a loop.
  static func take() -> WorkerPool? {
    pools.withLock { pools in
      if let idle = pools.first(where: { !$0.isTaken.load(ordering: .acquiring) }) {
        idle.isTaken.store(true, ordering: .relaxed)
        return idle
      }
      guard pools.count < maximumPools else { return nil }
      let new = WorkerPool()
      pools.append(new)
      return new
    }
  }

  /// Set under the lock of all pools.
  private let isTaken = Atomic(true)
  private let ticket = LoopTicket()
  /// Counts loops; workers sleep on it.
  private let announced = FutexWord()
  private let sleepers = onOwnLine(Atomic(0))
  /// Workers that are awake and will see the next loop by themselves.
  private let watchers = onOwnLine(Atomic(0))
  /// Pieces of the loop not yet done; the caller sleeps on it.
  private let pending = FutexWord()
  private let callerSleeps = Atomic(false)
  /// Threads beside the caller's; of the one that has taken the pool.
  private var workerCount = 0
  /// Written by the caller while no piece is open, read by who has taken one.
  private var body: UnsafePointer<Body>?

  /// Runs `body` for 0 ..< count, returns when all have returned and gives the
  /// pool back.
  func run(_ count: Int, _ body: UnsafePointer<Body>) {
    let missing = min(count, HostSettings.maximumThreads) - 1 - workerCount
    if missing > 0 { workerCount += Workers.start(missing, after: workerCount, for: self) }
    self.body = body
    pending.store(UInt32(count))
    ticket.open(pieces: count)
    announced.add(1)
    let asleep = count - 1 - watchers.pointee.load(ordering: .sequentiallyConsistent)
    if asleep > 0, sleepers.pointee.load(ordering: .sequentiallyConsistent) > 0 {
      announced.wake(asleep)
    }
    runPieces()
    waitForPieces()
    isTaken.store(false, ordering: .releasing)
  }

  private func runPieces() {
    while let piece = ticket.take() {
      body?.pointee(piece)
      if pending.subtract(1) == 0, callerSleeps.load(ordering: .sequentiallyConsistent) {
        pending.wake(1)
      }
    }
  }

  private func waitForPieces() {
    spin { pending.load() == 0 }
    guard pending.load() != 0 else { return }
    callerSleeps.store(true, ordering: .sequentiallyConsistent)
    while case let left = pending.load(), left != 0 { pending.wait(while: left) }
    callerSleeps.store(false, ordering: .sequentiallyConsistent)
  }

  /// What a thread of the pool does; never returns.
  func work() {
    // What a piece runs in parallel again, it runs on its own thread.
    mla_shim_thread().pointee.loops += 1
    while true {
      runPieces()
      watchers.pointee.add(1, ordering: .sequentiallyConsistent)
      spin { ticket.hasPieces }
      watchers.pointee.subtract(1, ordering: .sequentiallyConsistent)
      // In this order: a loop that opens after the last look changes the word.
      let seen = announced.load()
      sleepers.pointee.add(1, ordering: .sequentiallyConsistent)
      if !ticket.hasPieces { announced.wait(while: seen) }
      sleepers.pointee.subtract(1, ordering: .sequentiallyConsistent)
    }
  }

  /// Watches for about 50 us, unless that would take a processor from a thread
  /// that has work.
  private func spin(until condition: () -> Bool) {
    guard ticket.pieces <= HostLimits.processors else { return }
    let end = MonotonicClock.nanoseconds + 50_000
    repeat {
      for _ in 0..<32 {
        if condition() { return }
        mla_shim_spin_hint()
      }
    } while MonotonicClock.nanoseconds < end
  }
}
