import MLAShims

/// Threads that run the pieces of one parallel loop at a time, the caller's
/// thread among them.
///
/// A worker takes pieces as long as there are any, watches for the next loop for
/// a moment, then sleeps: loops that follow each other closely cost about a
/// microsecond, an idle pool costs nothing. A piece belongs to no worker, so a
/// loop never waits for one that is slow to wake or could not be started.
final class WorkerPool: @unchecked Sendable {
  typealias Body = (Int) -> Void

  private struct Pools {
    var process: UInt32 = 0
    var all: [WorkerPool] = []
  }

  private static let pools = Guarded(Pools())
  /// Loops of as many host threads run side by side; a further one's runs on its
  /// own thread alone.
  private static let maximumPools = 4

  /// A pool that is in no loop, for the caller's next `run`, or nil.
  ///
  /// A forked child has none of its parent's threads and leaves the parent's
  /// pools alone: they may have been in the middle of a loop.
  static func take() -> WorkerPool? {
    let process = mla_shim_process_number()
    return pools.withLock { pools in
      if pools.process != process { pools = Pools(process: process) }
      if let idle = pools.all.first(where: { $0.isTaken.replace(0, with: 1) }) { return idle }
      guard pools.all.count < maximumPools else { return nil }
      let new = WorkerPool()
      new.isTaken.store(1)
      pools.all.append(new)
      return new
    }
  }

  private let isTaken = FutexWord()
  private let ticket = LoopTicket()
  /// Counts loops; workers sleep on it.
  private let announced = FutexWord()
  private let sleepers = FutexWord()
  /// Workers that are awake and will see the next loop by themselves.
  private let watchers = FutexWord()
  /// Pieces of the loop not yet done; the caller sleeps on it.
  private let pending = FutexWord()
  private let callerSleeps = FutexWord()
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
    let asleep = count - 1 - Int(watchers.load())
    if asleep > 0, sleepers.load() > 0 { announced.wake(asleep) }
    runPieces()
    waitForPieces()
    isTaken.store(0)
  }

  private func runPieces() {
    while let piece = ticket.take() {
      body?.pointee(piece)
      if pending.subtract(1) == 0, callerSleeps.load() == 1 { pending.wake(1) }
    }
  }

  private func waitForPieces() {
    spin { pending.load() == 0 }
    guard pending.load() != 0 else { return }
    callerSleeps.store(1)
    while case let left = pending.load(), left != 0 { pending.wait(while: left) }
    callerSleeps.store(0)
  }

  /// What a thread of the pool does; never returns.
  func work() {
    // What a piece runs in parallel again, it runs on its own thread.
    mla_shim_enter_loop()
    while true {
      runPieces()
      watchers.add(1)
      spin { ticket.hasPieces }
      watchers.subtract(1)
      // In this order: a loop that opens after the last look changes the word.
      let seen = announced.load()
      sleepers.add(1)
      if !ticket.hasPieces { announced.wait(while: seen) }
      sleepers.subtract(1)
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
