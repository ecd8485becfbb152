/// Reads a struct that the caller filled, whatever header it was compiled
/// against: a missing tail reads as zero, a tail this library does not know
/// must be zero, and so must what is reserved.
///
/// - Parameter name: what the caller calls it, for messages.
func readStruct<Struct: ABIStruct & BitwiseCopyable>(
  _ pointer: UnsafePointer<Struct>?, name: String
) throws(MLAError) -> Struct {
  let filled = try readFields(pointer, name: name)
  guard filled.reserved == 0 else {
    throw .invalid("\(name).reserved", filled.reserved, "must be 0")
  }
  return filled
}

private func readFields<Struct: ABIStruct & BitwiseCopyable>(
  _ pointer: UnsafePointer<Struct>?, name: String
) throws(MLAError) -> Struct {
  let size = try checkedStructSize(pointer, name: name)
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
func checkedStructSize<Struct: ABIStruct & BitwiseCopyable>(
  _ pointer: UnsafePointer<Struct>?, name: String
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
  guard size >= Struct.firstSize, size <= maximumStructSize, size.isMultiple(of: alignment) else {
    throw .invalid(
      "\(name).struct_size", size,
      "must be the size that the matching _INIT macro sets, \(Struct.firstSize) to "
        + "\(maximumStructSize) and a multiple of \(alignment)")
  }
  return size
}

/// Far above any struct of this header: a larger size is garbage, not a newer
/// caller.
private let maximumStructSize = 4096
