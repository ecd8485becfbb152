import MLATestSupport

/// A batch's new tokens with random content.
public final class Workload: @unchecked Sendable {
  public let shape: BatchShape
  public let dimensions: MLADimensions
  public let q: HostTensor
  public let k: HostTensor
  public let v: HostTensor

  public init(_ shape: BatchShape, dimensions: MLADimensions, format: ElementFormat) {
    self.shape = shape
    self.dimensions = dimensions
    let heads = dimensions.heads
    q = HostTensor(format, rows: shape.rows, heads: heads, dim: dimensions.qk)
    k = HostTensor(format, rows: shape.rows, heads: heads, dim: dimensions.qk)
    v = HostTensor(format, rows: shape.rows, heads: heads, dim: dimensions.v)
    var random = SplitMix64(seed: seed)
    for tensor in [q, k, v] { tensor.fillNormal(&random) }
  }

  private init(_ other: Workload, q: HostTensor, k: HostTensor, v: HostTensor) {
    (shape, dimensions) = (other.shape, other.dimensions)
    (self.q, self.k, self.v) = (q, k, v)
  }

  /// The same numbers as fp32, for whom cannot read the format.
  public var float32: Workload {
    Workload(self, q: q.float32Copy, k: k.float32Copy, v: v.float32Copy)
  }

  public var seed: UInt64 { UInt64(shape.rows) }
  public var tokens: Int { shape.rows }
  public var flops: Double {
    Double(shape.requests) * dimensions.causalFLOPs(tokens: shape.tokens)
  }

  public func emptyState(_ format: ElementFormat) -> AttentionState {
    AttentionState(format, tokens: tokens, heads: dimensions.heads, dim: dimensions.v)
  }

  public func run(_ backend: Backend, into state: AttentionState) throws {
    try backend.runNewTokens(q: q, k: k, v: v, out: state.out, lse: state.lse)
  }
}
