import MLAKernelABI

/// A request as the choice between forms sees it.
struct LayerWork: Equatable, Sendable {
  let newTokens: Int
  let contextLen: Int
  /// New tokens are no keys.
  var contextOnly = false
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
    let keys = Double(work.contextLen + (work.contextOnly ? 0 : work.newTokens))
    return Double(work.numHeads)
      * (keys * work.projectionProducts * project
        + filled(work.newTokens) * work.keysPerQuery
          * Double(work.qkNopeHeadDim + work.qkRopeHeadDim + work.vHeadDim) * attend)
  }

  func absorbed(_ work: LayerWork) -> Double {
    let keyAndValue = Double(2 * work.kvLoraRank + work.qkRopeHeadDim)
    let tileTokens = SharedKeySchedule.mostTokensPerTile(numHeads: work.numHeads)
    let tiles = (work.newTokens + tileTokens - 1) / tileTokens
    return filled(work.newTokens) * Double(work.numHeads) * work.projectionProducts * project
      + Double(tiles) * work.keysPerQuery * keyAndValue * packLatents
      + filled(work.newTokens * work.numHeads)
        * (work.keysPerQuery * keyAndValue * attendLatents
          + Double(work.kvLoraRank) * latentResult)
  }

  /// Rows, with those that only fill up the last lanes.
  private func filled(_ rows: Int) -> Double { Double((rows + lanes - 1) / lanes * lanes) }
}

extension LayerWork {
  /// On average.
  fileprivate var keysPerQuery: Double {
    Double(contextLen) + (contextOnly ? 0 : Double(newTokens + 1) / 2)
  }

  /// To make a head's key and value of a latent, or to take a head's query to the
  /// latents and its result back.
  fileprivate var projectionProducts: Double {
    Double((qkNopeHeadDim + vHeadDim) * kvLoraRank)
  }
}

extension FormCost {
  /// What work costs with a dtype's kernel.
  ///
  /// The numbers stand here instead of being measured at run time, so that a request
  /// takes the same form, and has the same bits, whatever else the machine is doing.
  /// They are fitted to `mla-bench --forms` on one core of an AMD EPYC of
  /// generation Zen 5, with inputs of bf16. Other machines have other numbers, but
  /// nearly the same ratios, and where the forms meet either will do.
  ///
  /// AMX is computed: 512 products a cycle at 2 GHz, of which projections and
  /// attention reach two thirds; packing by the 90 cycles that a key and value of 320
  /// elements take; a result is loaded, merged and stored as on AVX-512. In fp16 each
  /// product is four, with a value three, and packing makes two operands of one; in
  /// fp32 it is six, and packing makes three.
  ///
  /// Arm's are computed, too: 16 and 64 products a cycle at 2.6 GHz, of which projections
  /// reach nine tenths, attention what its softmax leaves; packing and results are AVX2's,
  /// where rows of bf16 are packed as they are half of it.
  static func of(_ kernel: mla_attention_kernel, _ type: ElementType) -> FormCost {
    switch Int(kernel.family) {
    case MLA_FAMILY_AMX where type == .float16:
      FormCost(
        lanes: 32, project: 0.0060, attend: 0.0054, attendLatents: 0.0053, packLatents: 0.28,
        latentResult: 1.6)
    case MLA_FAMILY_AMX where type == .float32:
      FormCost(
        lanes: 32, project: 0.0090, attend: 0.0090, attendLatents: 0.0090, packLatents: 0.42,
        latentResult: 1.6)
    case MLA_FAMILY_AMX:
      FormCost(
        lanes: 32, project: 0.0015, attend: 0.0015, attendLatents: 0.0015, packLatents: 0.14,
        latentResult: 1.6)
    case MLA_FAMILY_AVX512_BF16:
      FormCost(
        lanes: 16, project: 0.0060, attend: 0.0050, attendLatents: 0.0057, packLatents: 0.25,
        latentResult: 1.6)
    case MLA_FAMILY_AVX512:
      FormCost(
        lanes: 16, project: 0.0118, attend: 0.0101, attendLatents: 0.0115, packLatents: 0.48,
        latentResult: 2.4)
    case MLA_FAMILY_AVX2:
      FormCost(
        lanes: 8, project: 0.0207, attend: 0.0186, attendLatents: 0.0196, packLatents: 0.59,
        latentResult: 3.0)
    case MLA_FAMILY_NEON:
      FormCost(
        lanes: 8, project: 0.027, attend: 0.028, attendLatents: 0.027, packLatents: 0.59,
        latentResult: 3.0)
    case MLA_FAMILY_NEON_BF16:
      FormCost(
        lanes: 8, project: 0.0067, attend: 0.0083, attendLatents: 0.0070, packLatents: 0.30,
        latentResult: 3.0)
    default:
      FormCost(
        lanes: 4, project: 0.0493, attend: 0.0539, attendLatents: 0.0528, packLatents: 0.59,
        latentResult: 4.0)
    }
  }
}
