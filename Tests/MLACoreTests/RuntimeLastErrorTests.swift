import Foundation
import XCTest

@testable import MLACore

final class RuntimeLastErrorTests: XCTestCase {
  override func tearDown() { LastError.set("") }

  private var message: String { String(cString: LastError.cString) }

  func testEachThreadHasItsOwn() {
    LastError.set("mine")
    let others = Guarded([String]())
    for round in 0..<3 {
      let done = DispatchSemaphore(value: 0)
      Thread {
        others.withLock { $0.append(String(cString: LastError.cString)) }
        LastError.set("other \(round)")
        others.withLock { $0.append(String(cString: LastError.cString)) }
        done.signal()
      }.start()
      done.wait()
    }
    XCTAssertEqual(others.withLock { $0 }, ["", "other 0", "", "other 1", "", "other 2"])
    XCTAssertEqual(message, "mine")
  }

  func testAnyLength() {
    for length in [0, 1, 511, 512, 513, 65_535, 3] {
      let text = String(repeating: "x", count: length)
      LastError.set(text)
      XCTAssertEqual(message, text)
    }
    LastError.set(String(repeating: "y", count: 100_000))
    XCTAssertEqual(message, String(repeating: "y", count: 65_535))
  }

  func testNullAndItself() {
    LastError.set("what: 1")
    LastError.set(cString: LastError.cString + 6)
    XCTAssertEqual(message, "1")
    LastError.set(cString: LastError.cString)
    XCTAssertEqual(message, "1")
    LastError.set(cString: nil)
    XCTAssertEqual(message, "")
  }

  func testSurvivesFork() throws {
    try skipUnderThreadSanitizer()
    LastError.set("from the parent")
    let status = exitStatusOfFork {
      guard String(cString: LastError.cString) == "from the parent" else { return 1 }
      LastError.set("from the child")
      return String(cString: LastError.cString) == "from the child" ? 0 : 2
    }
    XCTAssertEqual(status, 0)
    XCTAssertEqual(message, "from the parent")
  }
}
