/// Attention described to cuDNN by one unified operation.
struct CuDNNGraph {
  private let cuDNN: CuDNN
  private let attention: CuDNNAttention
  /// The most that a plan will be used for.
  private let sizes: CuDNNAttention.Sizes
  private let offsets: (queries: CuDNNDescriptor, keys: CuDNNDescriptor)

  typealias Tensor = CuDNNAttention.Tensor
  private typealias Attribute = CuDNN.Attribute

  init(_ cuDNN: CuDNN, _ attention: CuDNNAttention, atMost sizes: CuDNNAttention.Sizes)
    throws(CuDNN.Failure)
  {
    (self.cuDNN, self.attention, self.sizes) = (cuDNN, attention, sizes)
    func offsets(_ tensor: Tensor) throws(CuDNN.Failure) -> CuDNNDescriptor {
      try Self.tensor(tensor, cuDNN, attention, sizes, raggedBy: nil)
    }
    self.offsets = (try offsets(.queryOffsets), try offsets(.keyOffsets))
  }

  func make() throws(CuDNN.Failure) -> CuDNNDescriptor {
    let operation = try CuDNNDescriptor(cuDNN, .attention)
    try operation.set(Attribute.Attention.q, tensor(.q))
    try operation.set(Attribute.Attention.k, tensor(.k))
    try operation.set(Attribute.Attention.v, tensor(.v))
    try operation.set(Attribute.Attention.out, tensor(.out))
    try operation.set(Attribute.Attention.scale, tensor(.scale))
    try operation.set(Attribute.Attention.softmax, softmax())
    try operation.set(Attribute.Attention.queryOffsets, offsets.queries)
    try operation.set(Attribute.Attention.keyOffsets, offsets.keys)
    if attention.mask != .none {
      try operation.set(Attribute.Attention.subgraph, graph(of: mask()))
      try operation.set(Attribute.Attention.subgraphInput, Tensor.unmasked.rawValue)
      try operation.set(Attribute.Attention.subgraphOutput, Tensor.masked.rawValue)
    }
    try operation.finalize()
    return try graph(of: operation, takesOverrides: true)
  }

  private func softmax() throws(CuDNN.Failure) -> CuDNNDescriptor {
    let operation = try CuDNNDescriptor(cuDNN, .softmax)
    try operation.set(Attribute.Softmax.scores, tensor(.scores))
    try operation.set(Attribute.Softmax.weights, tensor(.weights))
    if attention.givesLSE { try operation.set(Attribute.Softmax.lse, tensor(.lse)) }
    try operation.finalize()
    return operation
  }

  private func mask() throws(CuDNN.Failure) -> CuDNNDescriptor {
    let operation = try CuDNNDescriptor(cuDNN, .diagonalBandMask)
    try operation.set(Attribute.Mask.scores, tensor(.unmasked))
    try operation.set(Attribute.Mask.value, tensor(.maskValue))
    try operation.set(Attribute.Mask.masked, tensor(.masked))
    try operation.set(Attribute.Mask.comparison, CuDNN.greaterOrEqual)
    if attention.mask == .bottomRight {
      // The diagonal is moved by what a request has more keys than queries.
      try operation.set(Attribute.Mask.queryOffsets, offsets.queries)
      try operation.set(Attribute.Mask.keyOffsets, offsets.keys)
    }
    try operation.finalize()
    return operation
  }

  private func graph(of operation: CuDNNDescriptor, takesOverrides: Bool = false)
    throws(CuDNN.Failure) -> CuDNNDescriptor
  {
    let graph = try CuDNNDescriptor(cuDNN, .operationGraph)
    try graph.set(Attribute.Graph.operations, operation)
    if takesOverrides { try graph.set(Attribute.Graph.takesOverrides, true) }
    try graph.finalize()
    return graph
  }

  private func tensor(_ tensor: Tensor) throws(CuDNN.Failure) -> CuDNNDescriptor {
    let ragged = attention.raggedness(of: tensor).map {
      ($0.offsets == .queryOffsets ? offsets.queries : offsets.keys, $0.multiplier)
    }
    return try Self.tensor(tensor, cuDNN, attention, sizes, raggedBy: ragged)
  }

  private static func tensor(
    _ tensor: Tensor, _ cuDNN: CuDNN, _ attention: CuDNNAttention, _ sizes: CuDNNAttention.Sizes,
    raggedBy offsets: (CuDNNDescriptor, multiplier: Int)?
  ) throws(CuDNN.Failure) -> CuDNNDescriptor {
    let descriptor = try CuDNNDescriptor(cuDNN, .tensor)
    let layout = attention.layout(of: tensor, sizes)
    try descriptor.set(Attribute.Tensor.id, tensor.rawValue)
    try descriptor.set(Attribute.Tensor.dataType, attention.dataType(of: tensor).rawValue)
    try descriptor.set(Attribute.Tensor.dimensions, extents: layout.dimensions)
    try descriptor.set(Attribute.Tensor.strides, extents: layout.strides)
    try descriptor.set(Attribute.Tensor.alignment, Int64(CuDNN.alignment))
    switch tensor {
    case .scale, .maskValue: try descriptor.set(Attribute.Tensor.isByValue, true)
    case .scores, .unmasked, .masked, .weights:
      try descriptor.set(Attribute.Tensor.isVirtual, true)
    default: break
    }
    if let (offsets, multiplier) = offsets {
      try descriptor.set(Attribute.Tensor.raggedOffsets, offsets)
      if multiplier > 1 {
        try descriptor.set(Attribute.Tensor.raggedMultiplier, Int64(multiplier))
      }
    }
    try descriptor.finalize()
    return descriptor
  }
}
