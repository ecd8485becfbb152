/// One of cuDNN's descriptors: attributes, then final. Keeps those that it refers to.
final class CuDNNDescriptor: @unchecked Sendable {
  let handle: CuDNN.DescriptorHandle
  private let cuDNN: CuDNN
  private var referred: [CuDNNDescriptor] = []

  init(_ cuDNN: CuDNN, _ type: CuDNN.DescriptorType) throws(CuDNN.Failure) {
    var made: CuDNN.DescriptorHandle?
    try cuDNN.check("cudnnBackendCreateDescriptor") {
      cuDNN.createDescriptor(type.rawValue, &made)
    }
    guard let made else { throw CuDNN.Failure(text: "cudnnBackendCreateDescriptor: gave nothing") }
    handle = made
    self.cuDNN = cuDNN
  }

  deinit { Arithmetic.callers { _ = cuDNN.destroyDescriptor(handle) } }

  /// - Parameter elements: as many as `count` says, of the attribute's type.
  func set(_ attribute: CuDNN.Attribute, _ elements: UnsafeRawPointer, count: Int)
    throws(CuDNN.Failure)
  {
    try cuDNN.check("cudnnBackendSetAttribute") {
      cuDNN.setAttribute(handle, attribute.name, attribute.type.rawValue, Int64(count), elements)
    }
  }

  func set(_ attribute: CuDNN.Attribute, _ value: some BitwiseCopyable) throws(CuDNN.Failure) {
    var value = value
    try set(attribute, &value, count: 1)
  }

  /// Sizes or strides.
  func set(_ attribute: CuDNN.Attribute, extents: some SIMD<Int64> & BitwiseCopyable) throws(CuDNN.Failure) {
    var extents = extents
    try set(attribute, &extents, count: extents.scalarCount)
  }

  func set(_ attribute: CuDNN.Attribute, _ other: CuDNNDescriptor) throws(CuDNN.Failure) {
    try set(attribute, other.handle)
    keep(other)
  }

  /// As long as this lives.
  func keep(_ other: CuDNNDescriptor) { referred.append(other) }

  func finalize() throws(CuDNN.Failure) {
    try cuDNN.check("cudnnBackendFinalize") { cuDNN.finalize(handle) }
  }

  /// - Parameter elements: room for `room` of them; nil: none is stored.
  /// - Returns: how many there are.
  @discardableResult
  func get(_ attribute: CuDNN.Attribute, _ elements: UnsafeMutableRawPointer?, room: Int)
    throws(CuDNN.Failure) -> Int
  {
    var count: Int64 = 0
    try cuDNN.check("cudnnBackendGetAttribute") {
      cuDNN.getAttribute(
        handle, attribute.name, attribute.type.rawValue, Int64(room), &count, elements)
    }
    return Int(count)
  }
}
