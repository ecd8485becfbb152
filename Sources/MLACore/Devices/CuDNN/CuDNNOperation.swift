/// What a plan of cuDNN's does: all that tells one plan from another.
enum CuDNNOperation: Equatable, Sendable {
  /// Of all batches up to these sizes.
  case attention(CuDNNAttention, atMost: CuDNNAttention.Sizes)
  case projection(CuDNNProjection)
}

extension CuDNNOperation {
  /// For logs.
  var name: StaticString {
    switch self {
    case .attention: "an attention"
    case .projection: "a projection"
    }
  }

  /// For names of files.
  var text: String {
    switch self {
    case .attention(let attention, let sizes): attention.text(sizes)
    case .projection(let projection): projection.text
    }
  }

  func graph(_ cuDNN: CuDNN) throws(CuDNN.Failure) -> CuDNNDescriptor {
    switch self {
    case .attention(let attention, let sizes):
      try CuDNNGraph(cuDNN, attention, atMost: sizes).make()
    case .projection(let projection): try projection.graph(cuDNN)
    }
  }
}
