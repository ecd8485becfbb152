/// What kv_b_proj makes of latents, as cuDNN is told of it:
///
///     out [rows, columns] = in [rows, depth] * weights [columns, depth] transposed
///
/// all of them dense, sums in fp32. Its shape is its plan's: where a plan's shapes may change from
/// run to run, cuDNN 9.24 to 9.28 have nothing for sm_90 but the kernels of sm_80.
struct CuDNNProjection: Equatable, Sendable {
  let type: CuDNN.DataType
  let rows: Int
  let columns: Int
  let depth: Int
}

extension CuDNNProjection {
  /// All that tells one from another, for names.
  var text: String { "projection \(type.rawValue) \(rows) x \(columns) of \(depth)" }

  /// The tensors, by their ids.
  enum Tensor: Int64, CaseIterable {
    case input = 1
    case weights, output
  }

  private typealias Attribute = CuDNN.Attribute

  func graph(_ cuDNN: CuDNN) throws(CuDNN.Failure) -> CuDNNDescriptor {
    let product = try CuDNNDescriptor(cuDNN, .product)
    try product.set(Attribute.Product.sumType, CuDNN.DataType.float32.rawValue)
    try product.finalize()
    let operation = try CuDNNDescriptor(cuDNN, .productOperation)
    try operation.set(Attribute.Product.a, tensor(.input, cuDNN))
    try operation.set(Attribute.Product.b, tensor(.weights, cuDNN))
    try operation.set(Attribute.Product.c, tensor(.output, cuDNN))
    try operation.set(Attribute.Product.product, product)
    try operation.finalize()
    let graph = try CuDNNDescriptor(cuDNN, .operationGraph)
    try graph.set(Attribute.Graph.operations, operation)
    try graph.finalize()
    return graph
  }

  private func tensor(_ tensor: Tensor, _ cuDNN: CuDNN) throws(CuDNN.Failure) -> CuDNNDescriptor {
    let descriptor = try CuDNNDescriptor(cuDNN, .tensor)
    let (dimensions, strides) = layout(of: tensor)
    try descriptor.set(Attribute.Tensor.id, tensor.rawValue)
    try descriptor.set(Attribute.Tensor.dataType, type.rawValue)
    try descriptor.set(Attribute.Tensor.dimensions, extents: dimensions)
    try descriptor.set(Attribute.Tensor.strides, extents: strides)
    try descriptor.set(Attribute.Tensor.alignment, Int64(CuDNN.alignment))
    try descriptor.finalize()
    return descriptor
  }

  /// One product: [1, its rows, its columns].
  private func layout(of tensor: Tensor) -> (dimensions: SIMD3<Int64>, strides: SIMD3<Int64>) {
    let (rows, columns, depth) = (Int64(rows), Int64(columns), Int64(depth))
    return switch tensor {
    case .input: ([1, rows, depth], [rows * depth, depth, 1])
    case .weights: ([1, depth, columns], [columns * depth, 1, depth])
    case .output: ([1, rows, columns], [rows * columns, columns, 1])
    }
  }
}
