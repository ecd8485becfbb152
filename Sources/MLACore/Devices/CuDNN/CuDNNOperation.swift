/// What a plan of cuDNN's does: all that tells one plan from another.
enum CuDNNOperation: Equatable, Sendable {
  /// Of all batches up to these sizes.
  case attention(CuDNNAttention, atMost: CuDNNAttention.Sizes)
}

extension CuDNNOperation {
  /// For logs.
  var name: StaticString {
    switch self {
    case .attention: "an attention"
    }
  }

  /// For names of files.
  var text: String {
    switch self {
    case .attention(let attention, let sizes): attention.text(sizes)
    }
  }

  func graph(_ cuDNN: CuDNN) throws(CuDNN.Failure) -> CuDNNDescriptor {
    switch self {
    case .attention(let attention, let sizes):
      try CuDNNGraph(cuDNN, attention, atMost: sizes).make()
    }
  }
}
