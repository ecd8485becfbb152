import CMLAPrefill
import Foundation
import XCTest

@testable import MLACore

final class RuntimeParallelLoopTests: XCTestCase {
  override func tearDown() { HostSettings.setParallelFor(nil, context: nil) }

  /// Each index once, its effects visible to the caller.
  func testRunsEachIndexOnce() {
    for workers in [0, 1, 2, 3, 5, 64, 2000, 70_000] {
      var runs = [Int](repeating: 0, count: workers)
      runs.withUnsafeMutableBufferPointer { runs in
        nonisolated(unsafe) let runs = runs
        ParallelLoop.run(workers: workers) { runs[$0] += 1 }
      }
      XCTAssertEqual(runs, [Int](repeating: 1, count: workers), "\(workers) workers")
    }
  }

  func testManyLoopsInARow() {
    for round in 0..<20_000 {
      let workers = [1, 2, 3, 5][round % 4]
      XCTAssertEqual(sumOfIndices(workers), workers * (workers + 1) / 2)
    }
  }

  /// Workers that fell asleep take part again: the caller waits inside its own
  /// iteration until another thread has run one.
  func testSleepingWorkersWake() {
    for _ in 0..<5 {
      usleep(2000)
      let threads = Guarded(Set<pthread_t>())
      ParallelLoop.run(workers: 2) { _ in
        threads.withLock { _ = $0.insert(pthread_self()) }
        let deadline = Date(timeIntervalSinceNow: 10)
        while threads.withLock({ $0.count }) < 2, Date() < deadline { sched_yield() }
      }
      XCTAssertEqual(threads.withLock { $0.count }, 2)
    }
  }

  func testNestedLoopsRunOnTheirOwnThread() {
    let total = Guarded(0)
    let strayed = Guarded(false)
    ParallelLoop.run(workers: 5) { _ in
      let own = pthread_self()
      ParallelLoop.run(workers: 3) { inner in
        if pthread_equal(own, pthread_self()) == 0 { strayed.withLock { $0 = true } }
        // Time for other threads to come.
        usleep(500)
        total.withLock { $0 += inner + 1 }
      }
    }
    XCTAssertEqual(total.withLock { $0 }, 5 * 6)
    XCTAssertFalse(strayed.withLock { $0 })
  }

  func testConcurrentCallers() {
    let wrong = Guarded(0)
    DispatchQueue.concurrentPerform(iterations: 7) { caller in
      for round in 0..<500 {
        let workers = 1 + (caller + round) % 5
        if sumOfIndices(workers) != workers * (workers + 1) / 2 { wrong.withLock { $0 += 1 } }
      }
    }
    XCTAssertEqual(wrong.withLock { $0 }, 0)
  }

  func testWorksInAForkedChild() throws {
    try skipUnderThreadSanitizer()
    XCTAssertEqual(sumOfIndices(3), 6)
    let status = exitStatusOfFork { sumOfIndices(3) == 6 && threadsOfALoop() == 2 ? 0 : 1 }
    XCTAssertEqual(status, 0)
    XCTAssertEqual(sumOfIndices(3), 6)
  }

  /// A child forked while other threads are in the middle of loops.
  func testForkDuringLoops() throws {
    try skipUnderThreadSanitizer()
    let stop = Guarded(false)
    let loops = DispatchGroup()
    for _ in 0..<3 {
      loops.enter()
      Thread.detachNewThread {
        while !stop.withLock({ $0 }) { _ = sumOfIndices(3) }
        loops.leave()
      }
    }
    for _ in 0..<50 {
      XCTAssertEqual(exitStatusOfFork { sumOfIndices(3) == 6 ? 0 : 1 }, 0)
    }
    stop.withLock { $0 = true }
    // Else they meet the next test's host.
    loops.wait()
  }

  /// A host that pins the calling thread does not pin the workers with it.
  func testWorkersOfAPinnedCallerSpread() throws {
    try skipUnderThreadSanitizer()
    let all = ProcessorSet.process
    try XCTSkipIf(all.count < 2, "one processor")
    // In a child, for a pool that has no workers yet; its main thread is the
    // caller, so another thread has to show what the process may use.
    let status = exitStatusOfFork {
      let other = Thread { sleep(60) }
      other.start()
      usleep(10_000)
      pinToOneProcessor()
      let masks = Guarded([ProcessorSet]())
      _ = threadsOfALoop { masks.withLock { $0.append(.thread) } }
      let counts = masks.withLock { $0.map(\.count) }.sorted()
      return counts == [1, all.count] ? 0 : 1
    }
    XCTAssertEqual(status, 0)
  }

  func testWorkersBlockTheHostsSignals() {
    let caller = pthread_self()
    let blockedByWorkers = Guarded([Bool]())
    _ = threadsOfALoop {
      guard pthread_equal(caller, pthread_self()) == 0 else { return }
      var mask = sigset_t()
      pthread_sigmask(SIG_BLOCK, nil, &mask)
      let faults = [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS]
      let blocked =
        sigismember(&mask, SIGINT) == 1 && faults.allSatisfy { sigismember(&mask, $0) == 0 }
      blockedByWorkers.withLock { $0.append(blocked) }
    }
    let blocked = blockedByWorkers.withLock { $0 }
    XCTAssertFalse(blocked.isEmpty)
    XCTAssertFalse(blocked.contains(false))
    var own = sigset_t()
    pthread_sigmask(SIG_BLOCK, nil, &own)
    XCTAssertEqual(sigismember(&own, SIGINT), 0)
  }

  func testHostsParallelForIsUsed() {
    let calls = Guarded([Int64]())
    let context = Unmanaged.passUnretained(calls).toOpaque()
    HostSettings.setParallelFor(
      { context, count, task, taskContext in
        let calls = Unmanaged<Guarded<[Int64]>>.fromOpaque(context!).takeUnretainedValue()
        calls.withLock { $0.append(count) }
        nonisolated(unsafe) let taskContext = taskContext
        DispatchQueue.concurrentPerform(iterations: Int(count)) { task!(taskContext, Int64($0)) }
      }, context: context)
    XCTAssertEqual(sumOfIndices(5), 15)
    XCTAssertEqual(sumOfIndices(1), 1)
    XCTAssertEqual(calls.withLock { $0 }, [5])
    HostSettings.setParallelFor(nil, context: nil)
    XCTAssertEqual(sumOfIndices(5), 15)
    XCTAssertEqual(calls.withLock { $0 }, [5])
  }

  /// A host that calls too often, too rarely or with an index of its own.
  func testHostsParallelForMayBeWrong() {
    HostSettings.setParallelFor({ _, _, _, _ in }, context: nil)
    XCTAssertEqual(sumOfIndices(5), 15)
    HostSettings.setParallelFor(
      { _, count, task, context in
        for _ in 0..<3 * count { task!(context, -1) }
      }, context: nil)
    XCTAssertEqual(sumOfIndices(5), 15)
  }

  /// A host that returns while its threads are at work.
  func testHostsParallelForMayReturnEarly() {
    let caller = pthread_self()
    let (begun, total) = (Guarded(0), Guarded(0))
    HostSettings.setParallelFor(
      { context, _, task, taskContext in
        let begun = Unmanaged<Guarded<Int>>.fromOpaque(context!).takeUnretainedValue()
        nonisolated(unsafe) let taskContext = taskContext
        for index: Int64 in 0..<2 { Thread.detachNewThread { task!(taskContext, index) } }
        while begun.withLock({ $0 }) < 2 { sched_yield() }
      }, context: Unmanaged.passUnretained(begun).toOpaque())
    ParallelLoop.run(workers: 4) { index in
      begun.withLock { $0 += 1 }
      if pthread_equal(caller, pthread_self()) == 0 { usleep(100_000) }
      total.withLock { $0 += index + 1 }
    }
    XCTAssertEqual(total.withLock { $0 }, 10)
  }
}

/// 1 + 2 + ... + workers, added up by as many iterations.
private func sumOfIndices(_ workers: Int) -> Int {
  let total = Guarded(0)
  ParallelLoop.run(workers: workers) { index in total.withLock { $0 += index + 1 } }
  return total.withLock { $0 }
}

/// Two iterations that wait for each other for a while, so that two threads have
/// to run them; returns how many did.
private func threadsOfALoop(_ body: () -> Void = {}) -> Int {
  let threads = Guarded(Set<pthread_t>())
  ParallelLoop.run(workers: 2) { _ in
    let isNew = threads.withLock { $0.insert(pthread_self()).inserted }
    if isNew { body() }
    let deadline = Date(timeIntervalSinceNow: 5)
    while threads.withLock({ $0.count }) < 2, Date() < deadline { sched_yield() }
  }
  return threads.withLock { $0.count }
}

private func pinToOneProcessor() {
  var one = ProcessorSet.thread
  withUnsafeMutableBytes(of: &one.set) { bytes in
    let words = bytes.bindMemory(to: UInt64.self)
    guard let first = words.firstIndex(where: { $0 != 0 }) else { return }
    let lowest = words[first] & (~words[first] &+ 1)
    for index in words.indices { words[index] = index == first ? lowest : 0 }
  }
  one.apply()
}
