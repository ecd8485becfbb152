/// How a request's attention is computed from latents. Both forms give the same
/// result within rounding.
public enum LayerForm: Equatable, Sendable {
  /// Each key is projected up for each head, once, however many queries look at it.
  case upProjected
  /// Each query is projected down to the latents, which all heads share as keys:
  /// longer dot products, and none of the keys' projections.
  case absorbed
}

/// A request as the choice between forms sees it.
struct LayerWork: Equatable, Sendable {
  let newTokens: Int
  let contextLen: Int
  let numHeads: Int
  let qkNopeHeadDim: Int
  let qkRopeHeadDim: Int
  let vHeadDim: Int
  let kvLoraRank: Int
}

/// What work costs with one kernel, in nanoseconds on one core; only ratios matter.
struct FormCost: Equatable, Sendable {
  /// Queries, or tokens, that a kernel works on side by side.
  let lanes: Int
  /// A product and sum of a projection.
  let project: Double
  /// One of attention to keys of a head.
  let attend: Double
  /// One of attention to latents.
  let attendLatents: Double
  /// Fetching and packing one element of a latent key or value.
  let packLatents: Double
  /// Beginning and ending an element of a query's result in latent space.
  let latentResult: Double

  /// The cheaper form, where the context is long enough for either.
  func form(of work: LayerWork) -> LayerForm {
    work.contextLen >= Self.shortestContext && absorbed(work) < upProjected(work)
      ? .absorbed : .upProjected
  }

  /// The forms round keys and queries differently. Over so many keys that averages
  /// out; over a few a prompt's lse would depend, by more than 2e-3 in bf16, on how
  /// it was cut into steps.
  static let shortestContext = 256

  func upProjected(_ work: LayerWork) -> Double {
    let keys = Double(work.contextLen + work.newTokens)
    return Double(work.numHeads)
      * (keys * work.projectionProducts * project
        + filled(work.newTokens) * work.keysPerQuery
          * Double(work.qkNopeHeadDim + work.qkRopeHeadDim + work.vHeadDim) * attend)
  }

  func absorbed(_ work: LayerWork) -> Double {
    let keyAndValue = Double(2 * work.kvLoraRank + work.qkRopeHeadDim)
    let chunkTokens = AbsorbedSchedule.mostChunkTokens(numHeads: work.numHeads)
    let chunks = (work.newTokens + chunkTokens - 1) / chunkTokens
    return filled(work.newTokens) * Double(work.numHeads) * work.projectionProducts * project
      + Double(chunks) * work.keysPerQuery * keyAndValue * packLatents
      + filled(work.newTokens * work.numHeads)
        * (work.keysPerQuery * keyAndValue * attendLatents
          + Double(work.kvLoraRank) * latentResult)
  }

  /// Rows, with those that only fill up the last lanes.
  private func filled(_ rows: Int) -> Double { Double((rows + lanes - 1) / lanes * lanes) }
}

extension LayerWork {
  /// On average.
  fileprivate var keysPerQuery: Double { Double(contextLen) + Double(newTokens + 1) / 2 }

  /// To make a head's key and value of a latent, or to take a head's query to the
  /// latents and its result back.
  fileprivate var projectionProducts: Double {
    Double((qkNopeHeadDim + vHeadDim) * kvLoraRank)
  }
}
