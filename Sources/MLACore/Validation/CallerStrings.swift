/// Reads a NUL-terminated string of the caller's; NULL is refused.
///
/// - Parameters:
///   - field: what the caller calls it, for messages.
///   - maximumBytes: longer strings are garbage, not names.
public func readString(
  _ pointer: UnsafePointer<CChar>?, field: String, maximumBytes: Int
) throws(MLAError) -> String {
  guard let pointer else { throw .null(field) }
  var length = 0
  while pointer[length] != 0 {
    length += 1
    guard length <= maximumBytes else {
      throw .invalid(field, "...", "must have at most \(maximumBytes) bytes")
    }
  }
  let bytes = UnsafeBufferPointer(start: pointer, count: length)
  guard let text = String(validating: bytes.lazy.map { UInt8(bitPattern: $0) }, as: UTF8.self) else {
    throw .invalid(field, "...", "must be UTF-8")
  }
  return text
}

/// Names of backends, as an engine or the environment hands them in.
public let maximumNameBytes = 255
/// Class paths and what a backend calls itself.
public let maximumPathBytes = 4096

/// NUL-terminated; whoever asks for it deallocates it.
public func copyCString(_ text: String) -> UnsafePointer<CChar> {
  let bytes = text.utf8CString
  let copy = UnsafeMutableBufferPointer<CChar>.allocate(capacity: bytes.count)
  _ = copy.initialize(from: bytes)
  // There is at least the NUL.
  return UnsafePointer(copy.baseAddress.unsafelyUnwrapped)
}
