// Where a checked tensor's elements are.

extension TensorView {
  /// [rows, heads, dim]: the first element of a head's row.
  func row(_ row: Int, head: Int) -> UnsafeMutableRawPointer { element(row, head) }

  /// [heads, rows] of fp32: the element of a row.
  func lse(_ row: Int, head: Int) -> UnsafeMutablePointer<Float> {
    element(head, row).assumingMemoryBound(to: Float.self)
  }

  /// The element (i, j), or (i, j, 0) of three dimensions.
  fileprivate func element(_ i: Int, _ j: Int) -> UnsafeMutableRawPointer {
    pointer(at: i * strides[0] + j * strides[1])
  }

  /// Some of a dimension's indices.
  func narrowed(_ dimension: Int, to range: Range<Int>) -> TensorView {
    var shape = shape
    shape[dimension] = range.count
    let offset = range.lowerBound * strides[dimension] * type.bytes
    return TensorView(
      name: name, type: type, shape: shape, strides: strides, address: address &+ UInt(offset))
  }

  /// The element that many elements behind the first.
  func pointer(at offset: Int) -> UnsafeMutableRawPointer {
    // Tasks exist for elements that exist only, and those are not at NULL.
    UnsafeMutableRawPointer(bitPattern: address &+ UInt(offset * type.bytes)).unsafelyUnwrapped
  }
}
