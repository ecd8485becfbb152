import MLATestSupport

/// One request's new tokens with random content.
public final class Workload: @unchecked Sendable {
  public let tokens: Int
  public let dimensions: MLADimensions
  public let q: HostTensor
  public let k: HostTensor
  public let v: HostTensor

  public init(tokens: Int, dimensions: MLADimensions, format: ElementFormat) {
    self.tokens = tokens
    self.dimensions = dimensions
    let heads = dimensions.heads
    q = HostTensor(format, rows: tokens, heads: heads, dim: dimensions.qk)
    k = HostTensor(format, rows: tokens, heads: heads, dim: dimensions.qk)
    v = HostTensor(format, rows: tokens, heads: heads, dim: dimensions.v)
    var random = SplitMix64(seed: UInt64(tokens))
    for tensor in [q, k, v] { tensor.fillNormal(&random) }
  }

  private init(_ other: Workload, q: HostTensor, k: HostTensor, v: HostTensor) {
    (tokens, dimensions) = (other.tokens, other.dimensions)
    (self.q, self.k, self.v) = (q, k, v)
  }

  /// The same numbers as fp32, for whom cannot read the format.
  public var float32: Workload {
    Workload(self, q: q.float32Copy, k: k.float32Copy, v: v.float32Copy)
  }

  public var flops: Double { dimensions.causalFLOPs(tokens: tokens) }

  public func emptyState(_ format: ElementFormat) -> AttentionState {
    AttentionState(format, tokens: tokens, heads: dimensions.heads, dim: dimensions.v)
  }

  public func run(_ backend: Backend, into state: AttentionState) throws {
    try backend.runNewTokens(q: q, k: k, v: v, out: state.out, lse: state.lse)
  }
}
