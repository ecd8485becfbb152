/// Memory of the caller's for a run, checked.
public struct Workspace: @unchecked Sendable {
  public let start: UnsafeMutableRawPointer
  public let size: Int

  var bytes: Range<UInt> { UInt(bitPattern: start)..<UInt(bitPattern: start) + UInt(size) }

  /// nil where the caller has none.
  init?(_ pointer: UnsafeMutableRawPointer?, size: Int64) throws(MLAError) {
    guard size >= 0 else { throw .invalid("workspace_size", size, "must not be negative") }
    guard let pointer else {
      guard size == 0 else { throw .invalid("workspace", "NULL", "workspace_size is \(size)") }
      return nil
    }
    let (end, overflows) = UInt(bitPattern: pointer).addingReportingOverflow(UInt(size))
    guard !overflows, end <= endOfMemory else {
      throw .invalid("workspace_size", size, "reaches beyond the address space")
    }
    guard size > 0 else { return nil }
    start = pointer
    self.size = Int(size)
  }

  /// - Parameter query: the function that would have said how much is needed.
  func require(_ bytes: Int, query: String) throws(MLAError) {
    guard size >= bytes else {
      throw .invalid("workspace_size", size, "this run needs \(bytes) bytes, see \(query)")
    }
  }

  func requireNoOverlap(with tensors: CallTensor?...) throws(MLAError) {
    for case let tensor? in tensors {
      guard !tensor.bytes.isEmpty, tensor.bytes.overlaps(bytes),
        StridedBytes(bytes).sharesBytes(with: StridedBytes(tensor.view))
      else { continue }
      throw .invalid("workspace", "\(start)", "must not overlap \(tensor.name)")
    }
  }
}
