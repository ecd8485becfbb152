import CMLAPrefill
import Foundation
import MLAShims
import MLATestSupport
import XCTest

@testable import MLACore

private struct Piece {
  let memory: UnsafeMutableRawPointer
  let bytes: Int
  let mark: UInt8

  init?(_ bytes: Int, alignment: Int = 16, mark: UInt8 = 1) {
    guard let memory = mla_shim_reserve_take(alignment, bytes) else { return nil }
    self.memory = memory
    self.bytes = bytes
    self.mark = mark
    memory.initializeMemory(as: UInt8.self, repeating: mark, count: bytes)
  }

  /// False if somebody else has written it.
  func giveBack() -> Bool {
    defer { mla_shim_reserve_give_back(memory) }
    return UnsafeRawBufferPointer(start: memory, count: bytes).allSatisfy { $0 == mark }
  }
}

/// The largest piece that can be had.
private func largest() -> Int {
  var (least, most) = (0, 1 << 30)
  while least < most {
    let middle = (least + most + 1) / 2
    if let memory = mla_shim_reserve_take(16, middle) {
      mla_shim_reserve_give_back(memory)
      least = middle
    } else {
      most = middle - 1
    }
  }
  return least
}

private func useAtRandom(_ seed: UInt64, rounds: Int) -> Bool {
  var random = SplitMix64(seed: seed)
  var pieces: [Piece] = []
  var isWhole = true
  for round in 0..<rounds {
    if pieces.count < 100, Bool.random(using: &random) {
      let alignment = 1 << Int.random(in: 0...13, using: &random)
      let bytes = Int.random(in: 0...(1 << Int.random(in: 0...16, using: &random)), using: &random)
      guard let piece = Piece(bytes, alignment: alignment, mark: UInt8(round & 0xff)) else {
        continue
      }
      isWhole = isWhole && UInt(bitPattern: piece.memory) % UInt(max(alignment, 16)) == 0
      isWhole = isWhole && mla_shim_reserve_owns(piece.memory) != 0
      isWhole = isWhole && mla_shim_reserve_size(piece.memory) >= bytes
      pieces.append(piece)
    } else if let index = pieces.indices.randomElement(using: &random) {
      isWhole = pieces.remove(at: index).giveBack() && isWhole
    }
  }
  for piece in pieces { isWhole = piece.giveBack() && isWhole }
  return isWhole
}

/// The memory that serves the Swift runtime where the system has none. Nothing else
/// takes of it in a test's process, whose allocations are the system's.
final class RuntimeReserveTests: XCTestCase {
  /// Other tests on this thread make no calls of the ABI, which would begin unmarked.
  override func tearDown() { _ = mla_shim_set_short(0) }

  func testPiecesOfAnySizeAndAlignment() {
    let all = largest()
    XCTAssertGreaterThan(all, 4 << 20)
    for seed in 1...20 { XCTAssertTrue(useAtRandom(UInt64(seed), rounds: 2000)) }
    XCTAssertEqual(largest(), all, "what was given back lies together again")
  }

  func testNoMoreThanThereIs() throws {
    XCTAssertNil(mla_shim_reserve_take(16, .max))
    XCTAssertNil(mla_shim_reserve_take(1 << 40, 16))
    var pieces: [Piece] = []
    while let piece = Piece(100_000) { pieces.append(piece) }
    XCTAssertGreaterThan(pieces.count, 40)
    XCTAssertNotEqual(mla_shim_reserve_is_low(), 0)
    XCTAssertThrowsError(try Shortage.requireReserve()) {
      XCTAssertEqual(($0 as? MLAError)?.status, mla_status(MLA_ERROR_OUT_OF_MEMORY))
    }
    for piece in pieces { XCTAssertTrue(piece.giveBack()) }
    XCTAssertEqual(mla_shim_reserve_is_low(), 0)
    XCTAssertNoThrow(try Shortage.requireReserve())
  }

  func testCallsThatTookOfItAreMarked() throws {
    let outer = Shortage.beginCall()
    XCTAssertFalse(Shortage.isPresent)
    let piece = try XCTUnwrap(Piece(10))
    XCTAssertTrue(Shortage.isPresent)
    XCTAssertThrowsError(try Shortage.check())
    let inner = Shortage.beginCall()
    XCTAssertNoThrow(try Shortage.check())
    Shortage.endCall(inner)
    XCTAssertTrue(Shortage.isPresent)
    XCTAssertTrue(piece.giveBack())
    Shortage.endCall(outer)
    XCTAssertFalse(Shortage.isPresent)
  }

  func testThreads() {
    let broken = Guarded(0)
    DispatchQueue.concurrentPerform(iterations: 8) { thread in
      if !useAtRandom(UInt64(100 + thread), rounds: 20_000) { broken.withLock { $0 += 1 } }
    }
    XCTAssertEqual(broken.withLock { $0 }, 0)
  }

  func testForkWhileAnotherThreadTakes() throws {
    try skipUnderThreadSanitizer()
    let isOver = Guarded(false)
    let done = DispatchSemaphore(value: 0)
    Thread {
      var seed: UInt64 = 1
      while !isOver.withLock({ $0 }) {
        _ = useAtRandom(seed, rounds: 100)
        seed += 1
      }
      done.signal()
    }.start()
    for _ in 0..<50 {
      XCTAssertEqual(exitStatusOfFork { Piece(1000)?.giveBack() == true ? 0 : 1 }, 0)
    }
    isOver.withLock { $0 = true }
    done.wait()
  }
}
