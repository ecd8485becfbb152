/// Fills a struct whose `struct_size` the caller has set, whatever header it was
/// compiled against: an older caller gets the fields it knows, the tail that
/// only a newer one knows is zeroed. Writes nothing if it throws.
///
/// - Parameters:
///   - name: what the caller calls it, for messages.
///   - value: what to store; its `struct_size` is ignored, the caller's stays.
public func writeStruct<Struct: ABIStruct & BitwiseCopyable>(
  _ pointer: UnsafeMutablePointer<Struct>?, name: String, value: Struct
) throws(MLAError) {
  let size = try checkedStructSize(pointer.map { UnsafePointer($0) }, name: name)
  guard let pointer else { return }
  let raw = UnsafeMutableRawPointer(pointer)
  let header = MemoryLayout<UInt32>.size
  let known = min(size, MemoryLayout<Struct>.size)
  withUnsafeBytes(of: value) { bytes in
    UnsafeMutableRawBufferPointer(start: raw + header, count: known - header)
      .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[header..<known]))
  }
  UnsafeMutableRawBufferPointer(start: raw + known, count: size - known)
    .initializeMemory(as: UInt8.self, repeating: 0)
}
