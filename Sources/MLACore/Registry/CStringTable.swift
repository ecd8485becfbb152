/// C strings that stay where they are as long as the table does, one copy of
/// each distinct string. Not thread-safe by itself.
final class CStringTable {
  // By bytes: Swift would take different spellings of one accent for equal.
  private var strings: [[UInt8]: UnsafePointer<CChar>] = [:]

  init() {}

  deinit { for string in strings.values { string.deallocate() } }

  func pointer(to text: String) -> UnsafePointer<CChar> {
    let bytes = Array(text.utf8)
    if let known = strings[bytes] { return known }
    let copy = copyCString(text)
    strings[bytes] = copy
    return copy
  }
}

/// NUL-terminated; whoever asks for it deallocates it.
func copyCString(_ text: String) -> UnsafePointer<CChar> {
  let bytes = text.utf8CString
  let copy = UnsafeMutableBufferPointer<CChar>.allocate(capacity: bytes.count)
  _ = copy.initialize(from: bytes)
  // There is at least the NUL.
  return UnsafePointer(copy.baseAddress.unsafelyUnwrapped)
}

/// Strings handed out for the life of the process: names and class paths, so
/// there are never more than were ever registered.
public enum InternedStrings {
  private static let table = Guarded(CStringTable())

  public static func pointer(to text: String) -> UnsafePointer<CChar> {
    table.withLock { $0.pointer(to: text) }
  }
}
