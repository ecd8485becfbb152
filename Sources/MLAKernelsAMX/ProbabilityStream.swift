import MLAShims

/// Vector work that fills the cycles in which tile products keep only their own
/// port busy. One step of it follows each step of four products.
protocol CompanionWork {
  mutating func step()
}

struct NoWork: CompanionWork {
  @inline(__always) mutating func step() {}
}

/// Turns the scores of a panel's pass over a block into probabilities, some
/// pairs of keys at a time, and sums them up before they are rounded; then lowers
/// those of the groups whose references have been raised since.
struct ProbabilityStream<Operands: TileOperands>: CompanionWork {
  /// Pairs of keys of the pass.
  private let pairs: Int
  /// Pairs that are turned, and behind the last of them pairs that are lowered.
  private var done = 0
  private var known = 0
  /// Pairs to be done by now, and how many more each step, in 1/65536.
  private var due = 0
  private var pace = 0

  private(set) var raises: ReferenceRaises
  private let ring: ScoreRing
  private let probabilities: UnsafeMutableRawPointer
  private let scale: FloatVector
  private var offset0: FloatVector
  private var offset1: FloatVector
  private var evenSum0 = FloatVector(repeating: 0)
  private var evenSum1 = FloatVector(repeating: 0)
  private var oddSum0 = FloatVector(repeating: 0)
  private var oddSum1 = FloatVector(repeating: 0)

  @inline(__always)
  init(
    _ statistics: PanelStatistics, _ scratch: TileScratch, groups: Int,
    probabilities: UnsafeMutableRawPointer, scale: Float
  ) {
    pairs = groups * pairsPerGroup
    raises = ReferenceRaises(scratch.raises)
    ring = ScoreRing(scratch.scores)
    self.probabilities = probabilities
    self.scale = FloatVector(repeating: scale)
    offset0 = statistics.offset[0]
    offset1 = statistics.offset[1]
  }

  @inline(__always)
  func addSums(to statistics: PanelStatistics) {
    statistics.add(evenSum0 + oddSum0, half: 0)
    statistics.add(evenSum1 + oddSum1, half: 1)
  }

  /// From here on all that is left is spread over `steps` steps.
  @inline(__always)
  mutating func setPace(over steps: Int) {
    let left = pairs + raises.lowered * pairsPerGroup - done
    pace = ((left << 16) + steps) / max(steps, 1)
    beginProduct()
  }

  /// Pairs that could not be done in time do not come in one burst.
  @inline(__always)
  mutating func beginProduct() { due = done << 16 }

  @inline(__always)
  mutating func step() {
    due += pace
    proceed(upTo: min(due >> 16, known))
  }

  /// The next group's scores are about to overwrite the ring's oldest.
  @inline(__always)
  mutating func makeRoom(for group: Int) {
    proceed(upTo: (group + 1 - ScoreRing.groups) * pairsPerGroup)
  }

  /// The group's scores and reference are known.
  @inline(__always)
  mutating func release(_ group: Int, raised: Bool) {
    if raised { raises.note(group) }
    known = (group + 1) * pairsPerGroup
  }

  /// All groups are.
  @inline(__always)
  mutating func releaseLowering() {
    if raises.lowered > 0 { raises.sumUp() }
    known = pairs + raises.lowered * pairsPerGroup
  }

  @inline(__always)
  mutating func finish() { proceed(upTo: known) }

  @inline(__always)
  private mutating func proceed(upTo end: Int) {
    while done < min(end, pairs) {
      convertPair(done)
      done += 1
    }
    while done < end {
      lowerPair(done - pairs)
      done += 1
    }
  }

  @inline(__always)
  private func row(_ pair: Int) -> UnsafeMutablePointer<FloatVector> {
    (probabilities + pair * Operands.parts * TileScratch.rowBytes)
      .assumingMemoryBound(to: FloatVector.self)
  }

  @inline(__always)
  private mutating func convertPair(_ pair: Int) {
    if pair % pairsPerGroup == 0 && raises.has(pair / pairsPerGroup) {
      takeReference(raises[pair / pairsPerGroup])
    }
    let from = ring.pair(pair)
    var even0 = Operands.probability(mla_multiply_add(from[0], scale, offset0))
    var even1 = Operands.probability(mla_multiply_add(from[1], scale, offset1))
    var odd0 = Operands.probability(mla_multiply_add(from[2], scale, offset0))
    var odd1 = Operands.probability(mla_multiply_add(from[3], scale, offset1))
    evenSum0 += even0
    evenSum1 += even1
    oddSum0 += odd0
    oddSum1 += odd1
    var to = row(pair)
    for _ in 1..<Operands.parts {
      // Positive parts, so that an infinite value stays one.
      let (part0, oddPart0) = (mla_below_bf16(even0), mla_below_bf16(odd0))
      let (part1, oddPart1) = (mla_below_bf16(even1), mla_below_bf16(odd1))
      to[0] = mla_pair_numbers_bf16(part0, oddPart0)
      to[1] = mla_pair_numbers_bf16(part1, oddPart1)
      (even0, even1) = (even0 - part0, even1 - part1)
      (odd0, odd1) = (odd0 - oddPart0, odd1 - oddPart1)
      to += 2
    }
    // A NaN need not come through: it is in the sum.
    to[0] = mla_pair_numbers_bf16(even0, odd0)
    to[1] = mla_pair_numbers_bf16(even1, odd1)
  }

  @inline(__always)
  private mutating func takeReference(_ raise: ReferenceRaise) {
    offset0 = raise.offset[0]
    offset1 = raise.offset[1]
    evenSum0 = scaleByPower(evenSum0, raise.change[0])
    evenSum1 = scaleByPower(evenSum1, raise.change[1])
    oddSum0 = scaleByPower(oddSum0, raise.change[0])
    oddSum1 = scaleByPower(oddSum1, raise.change[1])
  }

  @inline(__always)
  private func lowerPair(_ pair: Int) {
    let lowering = raises[pair / pairsPerGroup].lowering
    let p = row(pair)
    for part in 0..<Operands.parts {
      p[2 * part] = mla_lower_pairs(p[2 * part], lowering[0])
      p[2 * part + 1] = mla_lower_pairs(p[2 * part + 1], lowering[1])
    }
  }
}
