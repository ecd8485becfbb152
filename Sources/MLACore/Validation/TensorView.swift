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

  /// [rows, heads, dim], or [batch, tokens, heads, dim], whose rows are numbered batch by
  /// batch: the first element of a head's row.
  func row(_ row: Int, head: Int) -> UnsafeMutableRawPointer {
    guard shape.count == 4 else { return pointer(at: row * strides[0] + head * strides[1]) }
    let (batch, token) = row.quotientAndRemainder(dividingBy: shape[1])
    return pointer(at: batch * strides[0] + token * strides[1] + head * strides[2])
  }

  /// From a row to the next one of the same batch, and from a head to the next, in elements.
  var rowStride: Int { strides[shape.count - 3] }
  var headStride: Int { strides[shape.count - 2] }

  /// [heads, rows] of fp32, or [batch, heads, tokens]: the element of a row.
  func lse(_ row: Int, head: Int) -> UnsafeMutablePointer<Float> {
    let place: Int
    if shape.count == 3 {
      let (batch, token) = row.quotientAndRemainder(dividingBy: shape[2])
      place = batch * strides[0] + head * strides[1] + token * strides[2]
    } else {
      place = head * strides[0] + row * strides[1]
    }
    return pointer(at: place).assumingMemoryBound(to: Float.self)
  }

  /// [batch, heads, tokens, dim] as [batch, tokens, heads, dim].
  var tokensBeforeHeads: TensorView {
    TensorView(
      type: type, shape: [shape[0], shape[2], shape[1], shape[3]],
      strides: [strides[0], strides[2], strides[1], strides[3]], address: address)
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
