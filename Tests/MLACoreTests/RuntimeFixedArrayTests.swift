import MLATestSupport
import XCTest

@testable import MLACore

final class RuntimeFixedArrayTests: XCTestCase {
  func testHoldsWhatIsAppended() throws {
    var array = try FixedArray<Int32>(capacity: 5, for: "a test")
    for value in 0..<5 { array.append(Int32(value * value)) }
    array[1] = 7
    XCTAssertEqual(Array(array), [0, 7, 4, 9, 16])
    XCTAssertEqual(Array(array.part(1..<4)), [7, 4, 9])
    XCTAssertTrue(array.isSame(as: array.part(0..<5)))
    XCTAssertTrue(FixedArray<Int32>().isEmpty)
    XCTAssertEqual(Array(try FixedArray(repeating: 3, count: 2, for: "a test")), [3, 3])
  }

  /// In any order that may come, with equal keys told apart by their places.
  func testSorting() throws {
    var random = SplitMix64(seed: 91)
    for count in [0, 1, 2, 3, 4, 5, 31, 32, 1000] {
      for largest in [0, 3, 1000] {
        let keys = (0..<count).map { _ in random.int(0...largest) }
        for keys in [keys, keys.sorted(), keys.sorted(by: >)] {
          var array = try FixedArray<(key: Int, place: Int)>(capacity: count, for: "a test")
          for (place, key) in keys.enumerated() { array.append((key, place)) }
          array.sort { ($0.key, $0.place) < ($1.key, $1.place) }
          let sorted = keys.enumerated().sorted { ($0.element, $0.offset) < ($1.element, $1.offset) }
          XCTAssertEqual(array.map(\.key), sorted.map(\.element))
          XCTAssertEqual(array.map(\.place), sorted.map(\.offset))
        }
      }
    }
  }

  func testMemoryThatNobodyHas() {
    // Of some the size in bytes would be little if what overflows was dropped.
    for capacity in [1 << 59, Int.max, 1 << 61, 1 << 61 + 4, 1 << 62 + 1] {
      let error = mlaError { try FixedArray<Int>(capacity: capacity, for: "a test's numbers") }
      XCTAssertEqual(error?.status, 5)
      XCTAssertTrue(error?.message.hasPrefix("a test's numbers: ") ?? false, error?.message ?? "")
    }
  }
}
