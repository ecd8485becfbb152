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
/// pairs of keys at a time, and sums them up before they are rounded.
struct ProbabilityStream<Operands: TileOperands>: CompanionWork {
  /// Pairs of keys that are done, of those whose scores and reference are known.
  private(set) var pair = 0
  var knownPairs = 0
  /// Pairs to be done by now, and how many more each step, in 1/65536.
  private var due = 0
  private var pace = 0

  private var ring: ScoreRing
  private let probabilities: UnsafeMutableRawPointer
  private let scale: FloatVector
  private var offset0: FloatVector
  private var offset1: FloatVector
  private var evenSum0: FloatVector
  private var evenSum1: FloatVector
  private var oddSum0: FloatVector
  private var oddSum1: FloatVector

  @inline(__always)
  init(
    _ statistics: PanelStatistics, _ ring: ScoreRing, probabilities: UnsafeMutableRawPointer,
    scale: Float
  ) {
    self.ring = ring
    self.probabilities = probabilities
    self.scale = FloatVector(repeating: scale)
    offset0 = statistics.offset[0]
    offset1 = statistics.offset[1]
    evenSum0 = statistics.sum[0]
    evenSum1 = statistics.sum[1]
    oddSum0 = statistics.sum[2]
    oddSum1 = statistics.sum[3]
  }

  /// Begins again with the first pair, from the sums that were before it.
  @inline(__always)
  mutating func restart(_ statistics: PanelStatistics, _ ring: ScoreRing) {
    self.ring = ring
    pair = 0
    knownPairs = 0
    offset0 = statistics.offset[0]
    offset1 = statistics.offset[1]
    evenSum0 = statistics.sum[0]
    evenSum1 = statistics.sum[1]
    oddSum0 = statistics.sum[2]
    oddSum1 = statistics.sum[3]
  }

  @inline(__always)
  func save(_ statistics: PanelStatistics) {
    statistics.sum[0] = evenSum0
    statistics.sum[1] = evenSum1
    statistics.sum[2] = oddSum0
    statistics.sum[3] = oddSum1
  }

  /// From here on `pairs` are spread over `steps` steps.
  @inline(__always)
  mutating func setPace(pairs: Int, over steps: Int) {
    pace = ((pairs << 16) + steps) / max(steps, 1)
    beginProduct()
  }

  /// Pairs that could not be done in time do not come in one burst.
  @inline(__always)
  mutating func beginProduct() { due = pair << 16 }

  @inline(__always)
  mutating func step() {
    due += pace
    convert(upTo: min(due >> 16, knownPairs))
  }

  @inline(__always)
  mutating func convert(upTo end: Int) {
    while pair < end {
      convertPair(
        ring.pair(pair),
        (probabilities + pair * Operands.parts * TileScratch.rowBytes)
          .assumingMemoryBound(to: FloatVector.self))
      pair += 1
    }
  }

  @inline(__always)
  private mutating func convertPair(
    _ from: UnsafePointer<FloatVector>, _ to: UnsafeMutablePointer<FloatVector>
  ) {
    var even0 = Operands.probability(mla_multiply_add(from[0], scale, offset0))
    var even1 = Operands.probability(mla_multiply_add(from[1], scale, offset1))
    var odd0 = Operands.probability(mla_multiply_add(from[2], scale, offset0))
    var odd1 = Operands.probability(mla_multiply_add(from[3], scale, offset1))
    evenSum0 += even0
    evenSum1 += even1
    oddSum0 += odd0
    oddSum1 += odd1
    for part in 0..<Operands.parts {
      // A NaN need not come through: it is in the sum.
      to[2 * part] = mla_pair_numbers_bf16(even0, odd0)
      to[2 * part + 1] = mla_pair_numbers_bf16(even1, odd1)
      if part + 1 == Operands.parts { break }
      even0 = mla_remainder_of_numbers_bf16(even0)
      even1 = mla_remainder_of_numbers_bf16(even1)
      odd0 = mla_remainder_of_numbers_bf16(odd0)
      odd1 = mla_remainder_of_numbers_bf16(odd1)
    }
  }
}
