/// What one run hands to a plan: pointers; of an attention, the batch's own sizes.
struct CuDNNPack {
  typealias Tensor = CuDNNAttention.Tensor
  private typealias Attribute = CuDNN.Attribute

  /// A std::vector as a C++ program would have it, which is how shapes are handed over: where
  /// its elements begin, where they end, and where its memory does.
  private struct Vector {
    let begin: UnsafeRawPointer
    let end: UnsafeRawPointer
    let capacity: UnsafeRawPointer

    init(_ begin: UnsafeRawPointer, bytes: Int) {
      self.begin = begin
      end = begin + bytes
      capacity = end
    }
  }

  /// - Parameters:
  ///   - pointer: of a tensor; of a number, where it is.
  ///   - workspace: of the plan's `workspaceBytes`.
  static func make(
    _ cuDNN: CuDNN, _ attention: CuDNNAttention, _ sizes: CuDNNAttention.Sizes,
    workspace: UnsafeMutableRawPointer?, pointer: (Tensor) -> UnsafeMutableRawPointer?
  ) throws(CuDNN.Failure) -> CuDNNDescriptor {
    let overridden = attention.deviceTensors
    let tensors = overridden + [.scale] + (attention.mask == .none ? [] : [.maskValue])
    let ids = tensors.map(\.rawValue)
    let pack = try make(cuDNN, ids, tensors.map(pointer), workspace)
    try pack.set(Attribute.Pack.overriddenIDs, ids, count: overridden.count)
    let layouts = overridden.map { attention.layout(of: $0, sizes) }
    try set(layouts.map(\.dimensions), as: Attribute.Pack.shapes, of: pack)
    try set(layouts.map(\.strides), as: Attribute.Pack.strides, of: pack)
    try pack.finalize()
    return pack
  }

  /// For a plan without a workspace.
  static func make(
    _ cuDNN: CuDNN, pointer: (CuDNNProjection.Tensor) -> UnsafeMutableRawPointer?
  ) throws(CuDNN.Failure) -> CuDNNDescriptor {
    let tensors = CuDNNProjection.Tensor.allCases
    let pack = try make(cuDNN, tensors.map(\.rawValue), tensors.map(pointer), nil)
    try pack.finalize()
    return pack
  }

  /// Not final yet.
  private static func make(
    _ cuDNN: CuDNN, _ ids: [Int64], _ pointers: [UnsafeMutableRawPointer?],
    _ workspace: UnsafeMutableRawPointer?
  ) throws(CuDNN.Failure) -> CuDNNDescriptor {
    let pack = try CuDNNDescriptor(cuDNN, .variantPack)
    try pack.set(Attribute.Pack.ids, ids, count: ids.count)
    try pack.set(Attribute.Pack.pointers, pointers, count: ids.count)
    try pack.set(Attribute.Pack.workspace, workspace)
    return pack
  }

  private static func set(
    _ extents: [SIMD4<Int64>], as attribute: CuDNN.Attribute, of pack: CuDNNDescriptor
  ) throws(CuDNN.Failure) {
    let (numbers, inner) = try CuDNN.allocating { () throws(MLAError) in
      let numbers = try FixedArray(
        (0..<extents.count * 4).lazy.map { extents[$0 / 4][$0 % 4] }, for: "shapes for cuDNN")
      let bytes = 4 * MemoryLayout<Int64>.size
      let inner = try FixedArray(
        extents.indices.lazy.map { Vector(numbers.pointer + 4 * $0, bytes: bytes) },
        for: "shapes for cuDNN")
      return (numbers, inner)
    }
    var outer = Vector(inner.pointer, bytes: inner.count * MemoryLayout<Vector>.size)
    try pack.set(attribute, &outer, count: 1)
    withExtendedLifetime((numbers, inner)) {}
  }
}
