import Glibc
import MLAShims

/// Code for GPUs that was compiled before, in files: MLA_CACHE_DIR, else mla_prefill in the
/// user's cache directory. Where there is no such place nothing is found and nothing kept.
///
/// A file is code, then its length and a checksum: one that a full disk cut short, or
/// somebody wrote into, counts as none. It gets its name when it is whole.
struct CodeCache {
  private let folder: String?

  private struct Trailer {
    var length: UInt64
    var checksum: UInt64
  }

  init() {
    folder =
      Self.variable("MLA_CACHE_DIR")
      ?? Self.variable("XDG_CACHE_HOME").map { $0 + "/mla_prefill" }
      ?? Self.variable("HOME").map { $0 + "/.cache/mla_prefill" }
  }

  /// - Parameter name: of the file, which says what the code is for and what it came from.
  func code(named name: String) -> FixedArray<UInt8>? {
    guard let folder else { return nil }
    let file = mla_shim_open("\(folder)/\(name)", O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    let trailerBytes = MemoryLayout<Trailer>.size
    let bytes = lseek(file, 0, SEEK_END)
    guard (trailerBytes...Self.mostBytes).contains(bytes), lseek(file, 0, SEEK_SET) == 0
    else { return nil }
    let length = bytes - trailerBytes
    guard
      let code = try? FixedArray<UInt8>(repeating: 0, count: length, for: "machine code for a GPU")
    else { return nil }
    var trailer = Trailer(length: 0, checksum: 0)
    guard Self.readAll(file, UnsafeMutableRawPointer(mutating: code.pointer), length),
      Self.readAll(file, &trailer, trailerBytes), trailer.length == UInt64(length),
      trailer.checksum == Self.checksum(code)
    else { return nil }
    return code
  }

  /// - Returns: whether it is there for the next process.
  func keep(_ code: FixedArray<UInt8>, as name: String) -> Bool {
    guard let folder, Self.makeFolder(folder) else { return false }
    let path = "\(folder)/\(name)"
    return withTemporaryFile(path) { file, temporary in
      var trailer = Trailer(length: UInt64(code.count), checksum: Self.checksum(code))
      return Self.writeAll(file, code.pointer, code.count)
        && Self.writeAll(file, &trailer, MemoryLayout<Trailer>.size)
        && rename(temporary, path) == 0
    }
  }

  /// - Returns: what `body` did; false, and no file, where it failed.
  private func withTemporaryFile(
    _ path: String, _ body: (Int32, UnsafePointer<CChar>) -> Bool
  ) -> Bool {
    var template = Array((path + ".XXXXXX").utf8CString)
    return template.withUnsafeMutableBufferPointer { template in
      guard let name = template.baseAddress else { return false }
      let file = mla_shim_open_temporary(name)
      guard file >= 0 else { return false }
      let isKept = body(file, name)
      if !isKept { unlink(name) }
      close(file)
      return isKept
    }
  }

  /// FNV-1a: against accidents.
  static func checksum(_ bytes: some Sequence<UInt8>, from start: UInt64 = 0xcbf2_9ce4_8422_2325)
    -> UInt64
  {
    bytes.reduce(start) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  }

  /// Of a checksum, for names.
  static func hexadecimal(_ number: UInt64) -> String {
    let digits = String(number, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  private static let mostBytes = 256 << 20

  /// nil where it is not set, or to nothing.
  private static func variable(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
  }

  /// With those above it.
  private static func makeFolder(_ path: String) -> Bool {
    switch mla_shim_make_folder(path) {
    case 0, EEXIST: return true
    case ENOENT:
      guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return false }
      return makeFolder(String(path[..<slash])) && mla_shim_make_folder(path) == 0
    default: return false
    }
  }

  private static func readAll(_ file: Int32, _ to: UnsafeMutableRawPointer, _ count: Int) -> Bool {
    var done = 0
    while done < count, case let read = read(file, to + done, count - done), read > 0 { done += read }
    return done == count
  }

  private static func writeAll(_ file: Int32, _ from: UnsafeRawPointer, _ count: Int) -> Bool {
    var done = 0
    while done < count, case let written = write(file, from + done, count - done), written > 0 {
      done += written
    }
    return done == count
  }
}
