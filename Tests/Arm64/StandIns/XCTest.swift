// What the kernels' tests use of XCTest, of which there is none for this compiler and Arm.
@_exported import Foundation

open class XCTestCase {
  public required init() {}
}

/// Runs a test and says how it went.
public func run(_ name: String, _ test: () -> Void) {
  let before = failures
  test()
  print(failures == before ? "ok" : "not ok", name)
}

public nonisolated(unsafe) private(set) var failures = 0

private func report(_ what: String, _ message: String, _ file: StaticString, _ line: UInt) {
  failures += 1
  // What is wrong everywhere is plain from a few.
  if failures <= 20 { print("\(file):\(line): error: \(what) \(message)") }
}

public func XCTAssertTrue(
  _ condition: @autoclosure () -> Bool, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) {
  if !condition() { report("not true", message(), file, line) }
}

public func XCTAssertNil(
  _ value: @autoclosure () -> Any?, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) {
  if let value = value() { report("\(value) is not nil", message(), file, line) }
}

public func XCTAssertEqual<T: Equatable>(
  _ a: @autoclosure () -> T, _ b: @autoclosure () -> T, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) {
  // Not both values: some are a million numbers.
  if a() != b() { report("not equal", message(), file, line) }
}

public func XCTAssertEqual<T: FloatingPoint>(
  _ a: @autoclosure () -> T, _ b: @autoclosure () -> T, accuracy: T,
  _ message: @autoclosure () -> String = "", file: StaticString = #filePath, line: UInt = #line
) {
  let (a, b) = (a(), b())
  if !(abs(a - b) <= accuracy) { report("\(a) is not \(b)", message(), file, line) }
}

public func XCTAssertLessThan<T: Comparable>(
  _ a: @autoclosure () -> T, _ b: @autoclosure () -> T, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) {
  let (a, b) = (a(), b())
  if !(a < b) { report("\(a) is not less than \(b)", message(), file, line) }
}

public func XCTAssertLessThanOrEqual<T: Comparable>(
  _ a: @autoclosure () -> T, _ b: @autoclosure () -> T, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) {
  let (a, b) = (a(), b())
  if !(a <= b) { report("\(a) is more than \(b)", message(), file, line) }
}
