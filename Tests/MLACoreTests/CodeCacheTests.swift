import Glibc
import XCTest

@testable import MLACore

/// Compiled code in files that anybody may write into.
final class CodeCacheTests: XCTestCase {
  private var folder = ""

  override func setUp() {
    var template = Array("/tmp/mla-code-cache-XXXXXX".utf8CString)
    folder = String(cString: mkdtemp(&template))
    setenv("MLA_CACHE_DIR", folder + "/a/b", 1)
  }

  override func tearDown() {
    unsetenv("MLA_CACHE_DIR")
    system("rm -rf '\(folder)'")
  }

  private func bytes(_ count: Int) throws -> FixedArray<UInt8> {
    var bytes = try FixedArray<UInt8>(repeating: 0, count: count, for: "test")
    for i in 0..<count { bytes[i] = UInt8(truncatingIfNeeded: i &* 37 &+ i >> 8) }
    return bytes
  }

  private var path: String { folder + "/a/b/code" }

  private func entries() -> Int32 { system("test $(ls -A '\(folder)/a/b' | wc -l) = 1") }

  func testWhatIsKeptIsFound() throws {
    for count in [0, 1, 15, 100_000] {
      let code = try bytes(count)
      XCTAssertTrue(CodeCache().keep(code, as: "code"))
      let found = try XCTUnwrap(CodeCache().code(named: "code"))
      XCTAssert(found.elementsEqual(code), "\(count)")
      XCTAssertEqual(entries(), 0, "nothing else is left there")
    }
    XCTAssertNil(CodeCache().code(named: "other"))
  }

  func testDamagedFilesCountAsNone() throws {
    let code = try bytes(1000)
    let damages = [
      "truncate -s 999 '\(path)'", "truncate -s 0 '\(path)'", "truncate -s 15 '\(path)'",
      "printf x >> '\(path)'", "printf x | dd of='\(path)' bs=1 seek=500 conv=notrunc status=none",
      "printf xx | dd of='\(path)' bs=1 seek=1001 conv=notrunc status=none",
      "rm '\(path)'; mkdir '\(path)'",
    ]
    for damage in damages {
      XCTAssertTrue(CodeCache().keep(code, as: "code"), damage)
      XCTAssertEqual(system(damage), 0)
      XCTAssertNil(CodeCache().code(named: "code"), damage)
    }
    XCTAssertFalse(CodeCache().keep(code, as: "code"), "there is a folder of its name")
    XCTAssertEqual(entries(), 0, "nothing is left of the attempt")
  }

  func testPlacesThatAreNone() throws {
    let code = try bytes(10)
    for place in ["/dev/null/folder", "/proc/folder"] {
      setenv("MLA_CACHE_DIR", place, 1)
      XCTAssertFalse(CodeCache().keep(code, as: "code"), place)
      XCTAssertNil(CodeCache().code(named: "code"), place)
    }
  }
}
