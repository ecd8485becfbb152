import CMLAPrefill
import Foundation
import XCTest

@testable import MLACore

/// Several threads at one registry; worth most under the thread sanitizer.
final class RegistryConcurrencyTests: XCTestCase {
  /// Runs `body` on `count` threads at once.
  private func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
    let done = DispatchGroup()
    for index in 0..<count {
      done.enter()
      Thread.detachNewThread {
        body(index)
        done.leave()
      }
    }
    done.wait()
  }

  func testChangesReadersAndSelectorsAtOnce() throws {
    let registry = Registry()
    let contexts = (0..<4).map { _ in BackendProbe() }
    let rounds = 200
    onThreads(8) { thread in
      for round in 0..<rounds {
        if thread < 4 {
          change(registry, name: "THREAD_\(thread)", contexts[thread])
        } else {
          read(registry, round)
        }
      }
    }
    // Three contexts handed over in each round: the member's, the override's of
    // its own and that of the name all threads share.
    try registry.override("CPU", nil)
    XCTAssertEqual(contexts.map(\.destroyCount), Array(repeating: 3 * rounds, count: 4))
    XCTAssertEqual(registry.snapshot().map(\.name).count, 8)
  }

  func testOneOfManyRegistersAName() throws {
    let registry = Registry()
    let probes = (0..<8).map { _ in BackendProbe() }
    onThreads(8) { thread in
      for round in 0..<50 {
        try? registry.register("NAME_\(round)", request(probes[thread]))
      }
    }
    XCTAssertEqual(registry.snapshot().count, 8 + 50)
    for round in 0..<50 { try registry.remove("NAME_\(round)") }
    XCTAssertEqual(probes.map(\.destroyCount).reduce(0, +), 50)
  }

  func testStringsAreInternedOnceByAll() {
    let found = (0..<4).map { _ in PointerBox() }
    onThreads(4) { thread in
      for text in 0..<100 {
        found[thread].pointers.append(try! InternedStrings.pointer(to: "concurrent.\(text)"))
      }
    }
    for box in found { XCTAssertEqual(box.pointers, found[0].pointers) }
  }
}

private final class PointerBox: @unchecked Sendable {
  var pointers: [UnsafePointer<CChar>] = []
}

private func change(_ registry: Registry, name: String, _ probe: BackendProbe) {
  XCTAssertNoThrow(try registry.register(name, request(probe)))
  XCTAssertNoThrow(try registry.override(name, request(probe)))
  XCTAssertNoThrow(try registry.override("CPU", request(probe)))
  XCTAssertNoThrow(try registry.remove(name))
}

private func read(_ registry: Registry, _ round: Int) {
  let selector = Selector(registry: registry, servesZenCPU: false)
  let config = SelectorConfig(
    dtype: .bfloat16, dimensions: .deepSeek, backend: round % 2 == 0 ? "CPU" : nil)
  XCTAssertEqual(try selector.select(config), "CPU")
  XCTAssertGreaterThanOrEqual(try! BackendList(selector, config).count, 8)
  // Created and let go while others change what stands behind the name.
  XCTAssertNoThrow(try registry.implementation(of: "CPU"))
}
