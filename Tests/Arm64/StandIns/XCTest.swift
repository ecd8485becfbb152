// What the tests use of XCTest, of which there is none for this compiler and Arm.
@_exported import Foundation

open class XCTestCase {
  public required init() {}
  open func setUp() {}
  open func setUpWithError() throws {}
  open func tearDown() {}
  open func tearDownWithError() throws {}
}

/// Runs a test and says how it went.
public func run<Case: XCTestCase>(
  _ name: String, _ type: Case.Type, _ test: (Case) -> () throws -> Void
) {
  let before = failures
  let testCase = type.init()
  do {
    try testCase.setUpWithError()
    testCase.setUp()
    try test(testCase)()
  } catch let skip as XCTSkip {
    print("skipped: \(skip.reason)")
  } catch {
    report("threw \(error)", "", #filePath, #line)
  }
  testCase.tearDown()
  do { try testCase.tearDownWithError() } catch { report("\(error)", "", #filePath, #line) }
  print(failures == before ? "ok" : "not ok", name)
}

public nonisolated(unsafe) private(set) var failures = 0

public struct XCTSkip: Error {
  let reason: String
  public init(_ reason: String = "") { self.reason = reason }
}

struct UnwrappedNil: Error {}

private func report(_ what: String, _ message: String, _ file: StaticString, _ line: UInt) {
  failures += 1
  // What is wrong everywhere is plain from a few.
  if failures <= 20 { print("\(file):\(line): error: \(what) \(message)") }
}

/// What is wrong with values, if anything: as all assertions tell it.
private func check(
  _ message: () -> String, _ file: StaticString, _ line: UInt, _ fault: () throws -> String?
) {
  do {
    if let fault = try fault() { report(fault, message(), file, line) }
  } catch { report("threw \(error)", message(), file, line) }
}

public func XCTFail(_ message: String = "", file: StaticString = #filePath, line: UInt = #line) {
  report("failed", message, file, line)
}

public func XCTSkipIf(
  _ condition: @autoclosure () throws -> Bool, _ message: @autoclosure () -> String = ""
) throws {
  if try condition() { throw XCTSkip(message()) }
}

public func XCTUnwrap<T>(
  _ value: @autoclosure () throws -> T?, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) throws -> T {
  if let value = try value() { return value }
  report("is nil", message(), file, line)
  throw UnwrappedNil()
}

public func XCTAssert(
  _ condition: @autoclosure () throws -> Bool, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) { check(message, file, line) { try condition() ? nil : "not true" } }

public func XCTAssertTrue(
  _ condition: @autoclosure () throws -> Bool, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) { check(message, file, line) { try condition() ? nil : "not true" } }

public func XCTAssertFalse(
  _ condition: @autoclosure () throws -> Bool, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) { check(message, file, line) { try condition() ? "not false" : nil } }

public func XCTAssertNil(
  _ value: @autoclosure () throws -> Any?, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) { check(message, file, line) { try value().map { "\($0) is not nil" } } }

public func XCTAssertNotNil(
  _ value: @autoclosure () throws -> Any?, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) { check(message, file, line) { try value() == nil ? "is nil" : nil } }

public func XCTAssertEqual<T: Equatable>(
  _ a: @autoclosure () throws -> T, _ b: @autoclosure () throws -> T,
  _ message: @autoclosure () -> String = "", file: StaticString = #filePath, line: UInt = #line
) {
  // Not both values whole: some are a million numbers.
  check(message, file, line) {
    let (a, b) = (try a(), try b())
    return a == b ? nil : "\("\(a)".prefix(200)) is not \("\(b)".prefix(200))"
  }
}

public func XCTAssertNotEqual<T: Equatable>(
  _ a: @autoclosure () throws -> T, _ b: @autoclosure () throws -> T,
  _ message: @autoclosure () -> String = "", file: StaticString = #filePath, line: UInt = #line
) { check(message, file, line) { try a() == b() ? "equal" : nil } }

public func XCTAssertEqual<T: FloatingPoint>(
  _ a: @autoclosure () throws -> T, _ b: @autoclosure () throws -> T, accuracy: T,
  _ message: @autoclosure () -> String = "", file: StaticString = #filePath, line: UInt = #line
) { compare(a, b, "within \(accuracy) of", message, file, line) { abs($0 - $1) <= accuracy } }

public func XCTAssertLessThan<T: Comparable>(
  _ a: @autoclosure () throws -> T, _ b: @autoclosure () throws -> T,
  _ message: @autoclosure () -> String = "", file: StaticString = #filePath, line: UInt = #line
) { compare(a, b, "less than", message, file, line, <) }

public func XCTAssertLessThanOrEqual<T: Comparable>(
  _ a: @autoclosure () throws -> T, _ b: @autoclosure () throws -> T,
  _ message: @autoclosure () -> String = "", file: StaticString = #filePath, line: UInt = #line
) { compare(a, b, "at most", message, file, line, <=) }

public func XCTAssertGreaterThan<T: Comparable>(
  _ a: @autoclosure () throws -> T, _ b: @autoclosure () throws -> T,
  _ message: @autoclosure () -> String = "", file: StaticString = #filePath, line: UInt = #line
) { compare(a, b, "greater than", message, file, line, >) }

public func XCTAssertGreaterThanOrEqual<T: Comparable>(
  _ a: @autoclosure () throws -> T, _ b: @autoclosure () throws -> T,
  _ message: @autoclosure () -> String = "", file: StaticString = #filePath, line: UInt = #line
) { compare(a, b, "at least", message, file, line, >=) }

private func compare<T>(
  _ a: () throws -> T, _ b: () throws -> T, _ relation: String, _ message: () -> String,
  _ file: StaticString, _ line: UInt, _ holds: (T, T) -> Bool
) {
  check(message, file, line) {
    let (a, b) = (try a(), try b())
    return holds(a, b) ? nil : "\(a) is not \(relation) \(b)"
  }
}

public func XCTAssertThrowsError<T>(
  _ body: @autoclosure () throws -> T, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line, _ look: (Error) -> Void = { _ in }
) {
  do { _ = try body() } catch { return look(error) }
  report("threw nothing", message(), file, line)
}

public func XCTAssertNoThrow<T>(
  _ body: @autoclosure () throws -> T, _ message: @autoclosure () -> String = "",
  file: StaticString = #filePath, line: UInt = #line
) { check(message, file, line) { _ = try body(); return nil } }
