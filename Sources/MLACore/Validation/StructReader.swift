import CMLAPrefill

/// Reads a struct that the caller filled, whatever header it was compiled
/// against: a missing tail reads as zero, a tail this library does not know
/// must be zero.
///
/// - Parameters:
///   - pointer: the caller's struct; its first field is `uint32_t struct_size`.
///   - name: what the caller calls it, for messages.
///   - minimumSize: the size of its first version; no caller has a smaller one.
public func readStruct<Struct: BitwiseCopyable>(
  _ pointer: UnsafePointer<Struct>?, name: String, minimumSize: Int
) throws(MLAError) -> Struct {
  let size = try checkedStructSize(pointer, name: name, minimumSize: minimumSize)
  guard let pointer else { throw .null(name) }
  let raw = UnsafeRawPointer(pointer)
  let known = MemoryLayout<Struct>.size
  for offset in stride(from: known, to: size, by: 1)
  where raw.load(fromByteOffset: offset, as: UInt8.self) != 0 {
    throw .invalid(
      "\(name).struct_size", size,
      "byte \(offset) is set, but this library knows \(known) bytes only: it is older than its caller"
    )
  }
  if size >= known { return pointer.pointee }
  return withUnsafeTemporaryAllocation(
    byteCount: known, alignment: MemoryLayout<Struct>.alignment
  ) { copy in
    copy.initializeMemory(as: UInt8.self, repeating: 0)
    copy.copyMemory(from: UnsafeRawBufferPointer(start: raw, count: size))
    return copy.load(as: Struct.self)
  }
}

/// The `struct_size` of a caller's struct, once pointer and size are plausible.
func checkedStructSize<Struct>(
  _ pointer: UnsafePointer<Struct>?, name: String, minimumSize: Int
) throws(MLAError) -> Int {
  guard let pointer else { throw .null(name) }
  let raw = UnsafeRawPointer(pointer)
  guard Int(bitPattern: raw) % MemoryLayout<Struct>.alignment == 0 else {
    throw .invalid(
      name, "\(raw)", "must be aligned to \(MemoryLayout<Struct>.alignment) bytes")
  }
  let size = Int(raw.load(as: UInt32.self))
  let alignment = MemoryLayout<Struct>.alignment
  // A field of one version and the next one's never share an aligned word: sizes of
  // structs are multiples of their alignment, and no other size ends between fields.
  guard size >= minimumSize, size <= maximumStructSize, size.isMultiple(of: alignment) else {
    throw .invalid(
      "\(name).struct_size", size,
      "must be the size that the matching _INIT macro sets, \(minimumSize) to "
        + "\(maximumStructSize) and a multiple of \(alignment)")
  }
  return size
}

/// Far above any struct of this header: a larger size is garbage, not a newer
/// caller.
private let maximumStructSize = 4096

/// Fields that have no meaning yet must be zero, so that they can get one.
///
/// - Parameter name: what the caller calls the struct.
func checkReserved(_ name: String, _ value: UInt32) throws(MLAError) {
  guard value == 0 else { throw .invalid("\(name).reserved", value, "must be 0") }
}
