import MLAShims

/// The running softmax of a panel, in memory, two vectors of 16 queries each:
///
///     reference  the score that probabilities are relative to, unscaled
///     limit      the largest score that the reference still serves
///     offset     -reference * scale * log2(e), as it is added to scaled scores
///     largest    largest score of the group at hand
///     sum        of unrounded probabilities, even keys and odd keys apart
///
/// The reference is the running maximum, except that it only follows once the
/// maximum is `headroom` above it: probabilities up to 2^headroom are as exact as
/// those up to 1, and outputs need rescaling a few times instead of nearly always.
struct PanelStatistics {
  let reference: UnsafeMutablePointer<FloatVector>
  @inline(__always) var limit: UnsafeMutablePointer<FloatVector> { reference + 2 }
  @inline(__always) var offset: UnsafeMutablePointer<FloatVector> { reference + 4 }
  @inline(__always) var largest: UnsafeMutablePointer<FloatVector> { reference + 6 }
  @inline(__always) var sum: UnsafeMutablePointer<FloatVector> { reference + 8 }

  @inline(__always) static var bytes: Int { 12 * 64 }
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

  /// Notes the largest score of each query in a group; whether one of them is
  /// beyond its limit.
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
    largest[0] = largest0
    largest[1] = largest1
    return mla_any_greater(largest0, limit[0]) || mla_any_greater(largest1, limit[1])
  }

  /// Raises the reference of the queries beyond their limits to their largest
  /// score, and rescales what was summed up relative to the old one.
  @inline(never)
  func raiseReference(scale: Float, outputs: UnsafeMutablePointer<FloatVector>, rows: Int) {
    let none = FloatVector(repeating: -.infinity)
    let one = FloatVector(repeating: 1)
    // A scale near zero has no limit, but still a number for it.
    let slack = FloatVector(repeating: min(PanelStatistics.headroom / scale, 1e38))
    for half in 0..<2 {
      let rises = largest[half] .> limit[half]
      let raised = -largest[half] * scale
      // Before its first key a query has summed up nothing: 2^-inf of it remains.
      let change = mla_select_eq(reference[half], none, none, raised - offset[half])
      let factor = one.replacing(with: exp2(change), where: rises)
      offset[half].replace(with: raised, where: rises)
      limit[half].replace(with: largest[half] + slack, where: rises)
      reference[half].replace(with: largest[half], where: rises)
      sum[half] *= factor
      sum[half + 2] *= factor
      for row in 0..<rows { outputs[2 * row + half] *= factor }
    }
  }
}
