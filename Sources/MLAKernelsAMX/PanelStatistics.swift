import MLAShims

/// The running softmax of a panel, in memory, two vectors of 16 queries each:
///
///     limit    the largest score that the reference still serves
///     offset   -reference * log2(e): what is added to scaled scores
///     sum      of unrounded probabilities, and what adding blocks up has rounded off
///     largest  score of the group of keys at hand
///     change   of the offset, in the block at hand; then the power of two of it
///
/// A query's reference begins as the largest score of its first group of keys: where
/// one key outweighs all others, its probability is 1 and not rounded. A group whose
/// largest score is more than `headroom` above the reference raises it by a whole power
/// of two: probabilities up to 2^headroom are as exact as those up to 1, so references
/// change seldom, and what was relative to an older one is brought down exactly, by
/// taking the change from its exponent.
struct PanelStatistics {
  let limit: UnsafeMutablePointer<FloatVector>
  @inline(__always) var offset: UnsafeMutablePointer<FloatVector> { limit + 2 }
  @inline(__always) var sum: UnsafeMutablePointer<FloatVector> { limit + 4 }
  @inline(__always) var largest: UnsafeMutablePointer<FloatVector> { limit + 8 }
  @inline(__always) var change: UnsafeMutablePointer<FloatVector> { limit + 10 }

  @inline(__always) static var bytes: Int { 12 * 64 }
  @inline(__always) static var headroom: Float { 8 }

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer) {
    limit = start.assumingMemoryBound(to: FloatVector.self)
  }

  @inline(__always)
  func reset() {
    for half in 0..<2 {
      limit[half] = FloatVector(repeating: -.infinity)
      offset[half] = FloatVector(repeating: 0)
      sum[half] = FloatVector(repeating: 0)
      sum[half + 2] = FloatVector(repeating: 0)
    }
  }

  @inline(__always)
  func beginBlock() {
    change[0] = FloatVector(repeating: 0)
    change[1] = FloatVector(repeating: 0)
  }

  /// Takes in the scores of a group; whether one of them is beyond its query's
  /// limit.
  @inline(__always)
  func groupRises(_ scores: UnsafePointer<FloatVector>) -> Bool {
    var even0 = scores[0]
    var even1 = scores[1]
    var odd0 = scores[2]
    var odd1 = scores[3]
    for pair in 1..<pairsPerGroup {
      even0 = mla_max(even0, scores[4 * pair])
      even1 = mla_max(even1, scores[4 * pair + 1])
      odd0 = mla_max(odd0, scores[4 * pair + 2])
      odd1 = mla_max(odd1, scores[4 * pair + 3])
    }
    largest[0] = mla_max(even0, odd0)
    largest[1] = mla_max(even1, odd1)
    return mla_any_greater(largest[0], limit[0]) || mla_any_greater(largest[1], limit[1])
  }

  /// Raises the reference of the queries beyond their limits to the group's largest
  /// score, and keeps in `raise` what that means for probabilities.
  @inline(never)
  func raiseReference(scale: Float, _ raise: ReferenceRaise) {
    let none = FloatVector(repeating: -.infinity)
    let zero = FloatVector(repeating: 0)
    // A scale near zero has no limit, but still a number for it.
    let slack = FloatVector(repeating: min(PanelStatistics.headroom / scale, 1e38))
    for half in 0..<2 {
      let (served, top) = (limit[half], largest[half])
      // In steps so small that a probability next to 1 still rounds to 1 in bf16, and so
      // large that whole numbers are added exactly up to 2^14, to scores of 11,000.
      let exact = -top * scale
      let first = exact - mla_beyond_step(exact)
      let wanted = first - offset[half]
      // Before its first key a query has summed up nothing that could change.
      let whole = mla_select_eq(served, none, zero, wanted - mla_fraction(wanted))
      let lowered = mla_select_ge(served, top, zero, whole)
      let later = mla_select_eq(served, none, first, offset[half] + lowered)
      let raised = mla_select_ge(served, top, offset[half], later)
      raise.offset[half] = raised
      raise.change[half] = lowered
      offset[half] = raised
      change[half] += lowered
      limit[half] = mla_select_ge(served, top, served, top + slack)
    }
  }

  /// Adds the probabilities of a block to the sums.
  @inline(__always)
  func add(_ block: FloatVector, half: Int) {
    let before = sum[half]
    let total = before + block
    let added = total - before
    sum[half + 2] += (before - (total - added)) + (block - added)
    sum[half] = total
  }

  /// A query's, as a partial result has them.
  @inline(__always)
  func values(_ query: Int) -> (reference: Float, sum: Float, rest: Float) {
    let offsets = UnsafeRawPointer(offset).assumingMemoryBound(to: Float.self)
    let sums = UnsafeRawPointer(sum).assumingMemoryBound(to: Float.self)
    let (sum, rest) = (sums[query], sums[query + panelQueries])
    return (sum + rest == 0 ? -.infinity : -offsets[query], sum, rest)
  }

  /// Sums of the blocks before become relative to the reference after this one; the changes,
  /// what outputs are to be multiplied by.
  @inline(__always)
  func rescaleSums() {
    for half in 0..<2 {
      change[half] = power(of: change[half])
      sum[half] *= change[half]
      sum[half + 2] *= change[half]
    }
  }

  @inline(__always)
  private func power(of change: FloatVector) -> FloatVector {
    clearTiny(scaleByPower(FloatVector(repeating: 1), change), change)
  }
}
