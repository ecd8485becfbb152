import CMLAPrefill
import Foundation
import XCTest

@testable import MLACore

final class RuntimeScratchArenaTests: XCTestCase {
  override func setUp() { ScratchArena.releaseIdle() }
  override func tearDown() { ScratchArena.releaseIdle() }

  func testAlignedAndLargeEnough() throws {
    for bytes in [0, 1, 63, 4096, 4097, 1_000_000, 20_000_001] {
      let scratch = try ScratchArena.take(bytes: bytes, for: "scratch")
      XCTAssertEqual(Int(bitPattern: scratch.base) % 4096, 0)
      XCTAssertGreaterThanOrEqual(scratch.bytes, bytes)
      memset(scratch.base, 0xff, bytes)
    }
  }

  func testRounding() {
    for bytes in [0, 1, 4096, 4097, 1 << 20, (1 << 20) + 1, (1 << 40) - 1] {
      let rounded = ScratchArena.roundedUp(bytes)!
      XCTAssertGreaterThanOrEqual(rounded, bytes)
      XCTAssertLessThanOrEqual(rounded, bytes + max(bytes / 8, 4096))
      XCTAssertEqual(rounded % 4096, 0)
    }
    XCTAssertNil(ScratchArena.roundedUp(-1))
    XCTAssertNil(ScratchArena.roundedUp(.max))
  }

  func testReusesWhatWasGivenBack() throws {
    let first = try address(bytes: 1 << 20)
    XCTAssertEqual(try address(bytes: 1 << 20), first)
    XCTAssertEqual(try address(bytes: 900_000), first, "a little less")
    // A much smaller run leaves it to the next large one.
    let small = try ScratchArena.take(bytes: 100, for: "scratch")
    XCTAssertNotEqual(UInt(bitPattern: small.base), first)
  }

  func testTwoAtOnceAreApart() throws {
    let a = try ScratchArena.take(bytes: 10_000, for: "scratch")
    let b = try ScratchArena.take(bytes: 10_000, for: "scratch")
    XCTAssertGreaterThanOrEqual(abs(a.base - b.base), 10_000)
  }

  func testWhatIsKeptIsBounded() throws {
    hold(200)
    XCTAssertLessThanOrEqual(ScratchArena.idleBytes, 32 * 8192)
    ScratchArena.releaseIdle()
    XCTAssertEqual(ScratchArena.idleBytes, 0)
  }

  /// Twice as much as is kept, in addresses alone: nothing is written.
  func testWhatIsNotKeptIsFreed() throws {
    let before = try addressSpace()
    hold(64, bytes: 32 << 20)
    ScratchArena.releaseIdle()
    XCTAssertLessThan(try addressSpace() - before, 512 << 20)
  }

  func testWhatWasGivenBackLastIsKept() throws {
    hold(32)
    _ = try address(bytes: 1 << 20)
    let before = ScratchArena.idleBytes
    let again = try ScratchArena.take(bytes: 1 << 20, for: "scratch")
    XCTAssertEqual(before - ScratchArena.idleBytes, again.bytes)
  }

  func testWhatIsIdleGoesBackBeforeMemoryIsRefused() throws {
    hold(1)
    XCTAssertGreaterThan(ScratchArena.idleBytes, 0)
    XCTAssertNil(ScratchArena.allocate(1 << 60, alignment: 64))
    XCTAssertEqual(ScratchArena.idleBytes, 0)
  }

  func testImpossibleSizesThrow() {
    for bytes in [-1, .max, 1 << 60] {
      XCTAssertThrowsError(try address(bytes: bytes)) { error in
        XCTAssertEqual((error as? MLAError)?.status, mla_status(MLA_ERROR_OUT_OF_MEMORY))
        XCTAssertTrue("\(error)".contains("\(bytes) bytes"), "\(error)")
      }
    }
  }

  /// In a control group that gets little memory, whatever the system would promise.
  func testNoMoreThanTheProcessGets() throws {
    try skipUnderThreadSanitizer()
    for (parent, limit) in [
      ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"),
    ] {
      let group = "\(parent)/mla-test-\(getpid())"
      guard mkdir(group, 0o777) == 0 else { continue }
      defer { rmdir(group) }
      guard put(256 << 20, into: "\(group)/\(limit)") else { continue }
      let status = exitStatusOfFork {
        guard put(Int(getpid()), into: "\(group)/cgroup.procs") else { return 2 }
        HostLimits.find()
        return (try? address(bytes: 128 << 20)) != nil && (try? address(bytes: 257 << 20)) == nil
          ? 0 : 1
      }
      if status != 2 { return XCTAssertEqual(status, 0) }
    }
    throw XCTSkip("this host allows no control groups")
  }

  private func put(_ number: Int, into path: String) -> Bool {
    guard let file = fopen(path, "r+") else { return false }
    let isTaken = fputs("\(number)", file) >= 0
    return fclose(file) == 0 && isTaken
  }

  func testConcurrentRuns() {
    let clashes = Guarded(0)
    DispatchQueue.concurrentPerform(iterations: 4) { caller in
      for round in 0..<300 {
        guard let scratch = try? ScratchArena.take(bytes: 4096 * (1 + round % 3), for: "scratch")
        else { return clashes.withLock { $0 += 1 } }
        let words = scratch.base.bindMemory(to: Int.self, capacity: 512)
        for index in 0..<512 { words[index] = caller }
        sched_yield()
        if (0..<512).contains(where: { words[$0] != caller }) { clashes.withLock { $0 += 1 } }
      }
    }
    XCTAssertEqual(clashes.withLock { $0 }, 0)
  }

  func testWorksInAForkedChild() throws {
    try skipUnderThreadSanitizer()
    let first = try address(bytes: 50_000)
    XCTAssertEqual(exitStatusOfFork { (try? address(bytes: 50_000)) == first ? 0 : 1 }, 0)
  }

  private func address(bytes: Int) throws -> UInt {
    let scratch = try ScratchArena.take(bytes: bytes, for: "scratch")
    return UInt(bitPattern: scratch.base)
  }

  /// Of the process, in bytes.
  private func addressSpace() throws -> Int {
    let pages = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
    return try XCTUnwrap(Int(pages[0])) * Int(sysconf(Int32(_SC_PAGESIZE)))
  }

  /// Takes `count` blocks, then gives all of them back.
  private func hold(_ count: Int, bytes: Int = 5000) {
    guard count > 0, let scratch = try? ScratchArena.take(bytes: bytes, for: "scratch") else { return }
    hold(count - 1, bytes: bytes)
    _ = scratch.bytes
  }
}
