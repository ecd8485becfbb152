import MLATestSupport
import XCTest

@testable import MLACore

/// What a query of a request sees, by the masks' definitions.
final class RequestSpanTests: XCTestCase {
  func testQueriesSeeWhatTheirMaskSays() {
    for queryCount in 0...7 {
      for keyCount in 0...7 {
        for causal in [CausalMask.none, .start, .end] {
          let seen = (0..<queryCount).map { query in
            (0..<keyCount).filter { key in
              switch causal {
              case .none: true
              case .start: key <= query
              case .end: key - (keyCount - 1) <= query - (queryCount - 1)
              }
            }.count
          }
          let span = RequestSpan(
            queryBegin: 5, queryCount: queryCount, keyBegin: 9, keyCount: keyCount, causal: causal)
          let name = "\(queryCount) on \(keyCount), \(causal)"
          XCTAssertEqual((0..<queryCount).map(span.keysSeen(by:)), seen, name)
          XCTAssertEqual(span.pairs, seen.reduce(0, +), name)
          if let most = seen.last { XCTAssertEqual(span.keyCount, most, name) }
          checkParts(of: span, seen, name)
        }
      }
    }
  }

  private func checkParts(of span: RequestSpan, _ seen: [Int], _ name: String) {
    for begin in 0..<max(1, span.queryCount) {
      for end in begin..<span.queryCount {
        let part = span.part(begin..<end + 1)
        XCTAssertEqual(part.queryBegin, 5 + begin, name)
        XCTAssertEqual(part.keyBegin, 9, name)
        XCTAssertEqual((0...end - begin).map(part.keysSeen(by:)), Array(seen[begin...end]), name)
        XCTAssertEqual(part.keyCount, seen[end], name)
      }
    }
  }
}
