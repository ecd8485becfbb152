import Foundation
import MLACore
import XCTest

/// What the Swift runtime calls where a lazy global's token does not say that it is made.
@_silgen_name("__wrap__ZN5swift14threading_impl9once_slowERNS0_6once_tEPFvPvES3_")
private func makeOnce(
  _ token: UnsafeMutableRawPointer, _ make: @convention(c) (UnsafeMutableRawPointer) -> Void,
  _ context: UnsafeMutableRawPointer)

final class RuntimeLockTests: XCTestCase {
  /// By threads that have come at the same time, one after the other.
  func testALazyGlobalIsMadeOnce() {
    var token: (made: Int32, lock: UInt32) = (0, 0)
    var count = 0
    for _ in 0..<3 {
      makeOnce(&token, { $0.assumingMemoryBound(to: Int.self).pointee += 1 }, &count)
    }
    XCTAssertEqual(count, 1)
    XCTAssertEqual(token.lock, 0)
  }

  func testExcludesOtherThreads() {
    let total = Guarded(0)
    DispatchQueue.concurrentPerform(iterations: 4) { _ in
      for _ in 0..<20_000 { total.withLock { $0 += 1 } }
      // Held for so long that others sleep until they have it.
      for _ in 0..<500 {
        total.withLock { total in
          let before = total
          sched_yield()
          total = before + 1
        }
      }
    }
    XCTAssertEqual(total.withLock { $0 }, 82_000)
  }

  func testThrowsWhatTheBodyThrows() {
    struct Failure: Error, Equatable { let code: Int }
    let lock = Lock()
    XCTAssertThrowsError(try lock.withLock { () throws(Failure) in throw Failure(code: 7) }) {
      XCTAssertEqual($0 as? Failure, Failure(code: 7))
    }
    XCTAssertEqual(lock.withLock { 3 }, 3)
  }

  /// The state is never seen half changed by a child, and its lock is free there; who had to
  /// wait for a fork goes on.
  func testForkWaitsForOtherThreads() throws {
    try skipUnderThreadSanitizer()
    let pair = Guarded((0, 0))
    let (stop, running) = (Guarded(false), Guarded(2))
    let threads = (0..<2).map { _ in
      Thread {
        while !stop.withLock({ $0 }) {
          pair.withLock { pair in
            pair.0 += 1
            sched_yield()
            pair.1 += 1
          }
        }
        running.withLock { $0 -= 1 }
      }
    }
    threads.forEach { $0.start() }
    for _ in 0..<50 {
      XCTAssertEqual(exitStatusOfFork { pair.withLock { $0.0 == $0.1 } ? 0 : 1 }, 0)
    }
    stop.withLock { $0 = true }
    let deadline = Date(timeIntervalSinceNow: 10)
    while running.withLock({ $0 }) > 0, Date() < deadline { usleep(1000) }
    XCTAssertEqual(running.withLock { $0 }, 0)
  }
}
