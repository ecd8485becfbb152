import MLAShims

/// The running softmax of a panel, in memory, two vectors of 16 queries each:
///
///     reference  the score that probabilities are relative to, unscaled
///     limit      the largest score that the reference still serves
///     offset     -reference * scale * log2(e), as it is added to scaled scores
///     largest    largest score of the block at hand, as far as it is known
///     sum        of unrounded probabilities, even keys and odd keys apart
///     factor     what the last raise of the reference makes of outputs
///
/// A query's reference begins as the largest score of its first group of keys. A
/// block whose largest score is more than `headroom` above it gets that one, for
/// all its keys: probabilities up to 2^headroom are as exact as those up to 1,
/// outputs are rescaled once a block at most, and seldom.
struct PanelStatistics {
  let reference: UnsafeMutablePointer<FloatVector>
  @inline(__always) var limit: UnsafeMutablePointer<FloatVector> { reference + 2 }
  @inline(__always) var offset: UnsafeMutablePointer<FloatVector> { reference + 4 }
  @inline(__always) var largest: UnsafeMutablePointer<FloatVector> { reference + 6 }
  @inline(__always) var sum: UnsafeMutablePointer<FloatVector> { reference + 8 }

  @inline(__always) var factor: UnsafeMutablePointer<FloatVector> { reference + 12 }

  @inline(__always) static var bytes: Int { 14 * 64 }
  @inline(__always) static var headroom: Float { 8 }

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer) {
    reference = start.assumingMemoryBound(to: FloatVector.self)
  }

  @inline(__always)
  func reset() {
    for half in 0..<2 {
      reference[half] = FloatVector(repeating: -.infinity)
      limit[half] = FloatVector(repeating: -.infinity)
      offset[half] = FloatVector(repeating: 0)
      sum[half] = FloatVector(repeating: 0)
      sum[half + 2] = FloatVector(repeating: 0)
    }
  }

  @inline(__always)
  func beginBlock() {
    largest[0] = FloatVector(repeating: -.infinity)
    largest[1] = FloatVector(repeating: -.infinity)
  }

  /// Takes in the scores of a group; whether one of them is beyond its query's
  /// limit.
  @inline(__always)
  func groupRises(_ scores: UnsafePointer<FloatVector>) -> Bool {
    var even0 = scores[0]
    var even1 = scores[1]
    var odd0 = scores[2]
    var odd1 = scores[3]
    for pair in 1..<groupKeys / 2 {
      even0 = mla_max(even0, scores[4 * pair])
      even1 = mla_max(even1, scores[4 * pair + 1])
      odd0 = mla_max(odd0, scores[4 * pair + 2])
      odd1 = mla_max(odd1, scores[4 * pair + 3])
    }
    let largest0 = mla_max(even0, odd0)
    let largest1 = mla_max(even1, odd1)
    largest[0] = mla_max(largest0, largest[0])
    largest[1] = mla_max(largest1, largest[1])
    return mla_any_greater(largest0, limit[0]) || mla_any_greater(largest1, limit[1])
  }

  /// Raises the reference of the queries beyond their limits to their largest
  /// score, and rescales their sums. Outputs are to be rescaled by the factors
  /// that `factor` then holds.
  @inline(never)
  func raiseReference(scale: Float) {
    let none = FloatVector(repeating: -.infinity)
    let one = FloatVector(repeating: 1)
    // A scale near zero has no limit, but still a number for it.
    let slack = FloatVector(repeating: min(PanelStatistics.headroom / scale, 1e38))
    for half in 0..<2 {
      let rises = largest[half] .> limit[half]
      let raised = -largest[half] * scale
      // Before its first key a query has summed up nothing: 2^-inf of it remains.
      let change = mla_select_eq(reference[half], none, none, raised - offset[half])
      factor[half] = one.replacing(with: exp2(change), where: rises)
      offset[half].replace(with: raised, where: rises)
      limit[half].replace(with: largest[half] + slack, where: rises)
      reference[half].replace(with: largest[half], where: rises)
      sum[half] *= factor[half]
      sum[half + 2] *= factor[half]
    }
  }

  @inline(never)
  func rescale(_ outputs: UnsafeMutablePointer<FloatVector>, rows: Int) {
    let (factor0, factor1) = (factor[0], factor[1])
    for row in 0..<rows {
      outputs[2 * row] *= factor0
      outputs[2 * row + 1] *= factor1
    }
  }
}
