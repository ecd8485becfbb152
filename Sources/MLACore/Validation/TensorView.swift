/// Elements in memory that kernels may touch, of a tensor of the call or in memory of the
/// library's own. How far they reach is known to who made the view: it cannot be asked
/// what it overlaps.
struct TensorView: Equatable, Sendable {
  let type: ElementType
  var shape: Extents
  /// In elements.
  let strides: Extents
  /// First element; meaningless where there is none.
  var address: UInt

  init(type: ElementType, shape: Extents, strides: Extents, address: UInt) {
    self.type = type
    self.shape = shape
    self.strides = strides
    self.address = address
  }

  /// [rows, heads, dim], side by side.
  init(type: ElementType, dense shape: Extents, at start: UnsafeMutableRawPointer) {
    self.init(
      type: type, shape: shape, strides: [shape[1] * shape[2], shape[2], 1],
      address: UInt(bitPattern: start))
  }

  var isEmpty: Bool { shape.isEmpty }

  /// [rows, heads, dim]: the first element of a head's row.
  func row(_ row: Int, head: Int) -> UnsafeMutableRawPointer { element(row, head) }

  /// [heads, rows] of fp32: the element of a row.
  func lse(_ row: Int, head: Int) -> UnsafeMutablePointer<Float> {
    element(head, row).assumingMemoryBound(to: Float.self)
  }

  /// The element (i, j), or (i, j, 0) of three dimensions.
  private func element(_ i: Int, _ j: Int) -> UnsafeMutableRawPointer {
    pointer(at: i * strides[0] + j * strides[1])
  }

  /// Some of a dimension's indices.
  func narrowed(_ dimension: Int, to range: Range<Int>) -> TensorView {
    var view = self
    view.shape[dimension] = range.count
    view.address &+= UInt(range.lowerBound * strides[dimension] * type.bytes)
    return view
  }

  /// The element that many elements behind the first.
  func pointer(at offset: Int) -> UnsafeMutableRawPointer {
    // Tasks exist for elements that exist only, and those are not at NULL.
    UnsafeMutableRawPointer(bitPattern: address &+ UInt(offset * type.bytes)).unsafelyUnwrapped
  }
}
