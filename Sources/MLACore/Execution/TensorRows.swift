/// The rows of a tensor's heads, as the tasks of a run ask for them: steps in bytes are
/// worked out once.
struct TensorRows: Sendable {
  let type: ElementType
  /// In elements, from a row to the next one's of the same element of the batch.
  let stride: Int
  /// In elements, from a head to the next.
  let headStride: Int
  private let address: UInt
  private let rowBytes: Int
  private let headBytes: Int
  private let batchBytes: Int
  /// Of an element of the batch; 0: there is no batch.
  private let rowsPerElement: Int

  /// - Parameter tensor: [rows, heads, dim], or [batch, heads, rows, dim], whose rows are
  ///   numbered batch by batch.
  init(_ tensor: TensorView) {
    if tensor.shape.count == 4 {
      self.init(tensor, batch: 0, head: 1, row: 2)
    } else {
      self.init(tensor, batch: nil, head: 1, row: 0)
    }
  }

  /// - Parameter lse: [heads, rows] or [batch, heads, rows].
  init(lse: TensorView) {
    if lse.shape.count == 3 {
      self.init(lse, batch: 0, head: 1, row: 2)
    } else {
      self.init(lse, batch: nil, head: 0, row: 1)
    }
  }

  private init(_ tensor: TensorView, batch: Int?, head: Int, row: Int) {
    (type, address) = (tensor.type, tensor.address)
    (stride, headStride) = (tensor.strides[row], tensor.strides[head])
    (rowBytes, headBytes) = (stride * type.bytes, headStride * type.bytes)
    batchBytes = batch.map { tensor.strides[$0] * tensor.type.bytes } ?? 0
    rowsPerElement = batch == nil ? 0 : tensor.shape[row]
  }

  /// The first element of a head's row.
  subscript(row: Int, head head: Int) -> UnsafeMutableRawPointer {
    var (place, row) = (head * headBytes, row)
    if rowsPerElement > 0 {
      place += row / rowsPerElement * batchBytes
      row %= rowsPerElement
    }
    // Tasks exist for rows that exist only, and those are not at NULL.
    return UnsafeMutableRawPointer(bitPattern: address &+ UInt(place + row * rowBytes))
      .unsafelyUnwrapped
  }
}
