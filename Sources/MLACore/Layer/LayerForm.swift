/// How a request's attention is computed from latents. Both forms give the same
/// result within rounding.
public enum LayerForm: Equatable, Sendable {
  /// Each key is projected up for each head, once, however many queries look at it.
  case upProjected
  /// Each query is projected down to the latents, which all heads share as keys:
  /// longer dot products, and none of the keys' projections.
  case absorbed
}

extension LayerConfig {
  /// How a request is to be worked on: a matter of the request alone.
  func form(of request: Int, _ batch: LayerBatch, _ cost: FormCost) -> LayerForm {
    switch algorithm {
    case .upProjected: .upProjected
    case .absorbed: .absorbed
    case .auto:
      cost.form(
        of: LayerWork(
          newTokens: batch.queryStartLoc.count(request), contextLen: batch.contextLen(request),
          contextOnly: batch.contextOnly, numHeads: attention.numHeads,
          qkNopeHeadDim: attention.qkNopeHeadDim, qkRopeHeadDim: attention.qkRopeHeadDim,
          vHeadDim: attention.vHeadDim, kvLoraRank: attention.kvLoraRank))
    }
  }
}
