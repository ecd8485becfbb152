import MLAShims

/// The running softmax of a panel of queries, in powers of two, one lane a query: the
/// sum of 2^(score - reference).
///
/// The reference is the largest score of the first block, and raised by whole numbers
/// to stay at or above the later ones: what is relative to an older one is brought
/// down exactly, however many blocks there are. No order of scores costs more than
/// another.
struct OnlineSoftmax<Row: QueryRow> {
  private(set) var reference = Row.repeating(FloatVector(repeating: -.infinity))
  private var blocks = Row.repeating(FloatVector(repeating: 0))
  /// What adding blocks up has rounded off.
  private var lost = Row.repeating(FloatVector(repeating: 0))

  @inline(__always)
  var sum: Row { blocks.combined(lost) { $0 + $1 } }

  /// Takes in the scores of a block, which become probabilities. Returns what
  /// the outputs so far must be multiplied by.
  @inline(__always)
  mutating func update(_ scores: UnsafeMutablePointer<FloatVector>, keys: Int) -> Row {
    let (rescale, base) = raise(largest(scores, keys: keys))
    add(exponentiate(scores, keys: keys, reference: base), times: rescale)
    return rescale
  }

  /// Takes in what was summed up of other keys. Returns what the outputs so far and
  /// the others must be multiplied by.
  @inline(__always)
  mutating func update(_ other: OnlineSoftmax) -> (rescale: Row, share: Row) {
    let (rescale, base) = raise(reference.combined(other.reference, mla_max))
    let share = other.reference.combined(base) { exp2($0 - $1) }
    add(other.blocks.combined(share) { $0 * $1 }, times: rescale)
    lost = lost.combined(other.lost.combined(share) { $0 * $1 }) { $0 + $1 }
    return (rescale, share)
  }

  /// Brings the reference to `top` or above. Returns what is relative to the one before
  /// must be multiplied by, and what scores are now relative to.
  @inline(__always)
  private mutating func raise(_ top: Row) -> (rescale: Row, base: Row) {
    let next = reference.combined(top, raised)
    // While a query has seen no key, -inf - -inf must not become NaN.
    let zero = FloatVector(repeating: 0)
    let nothing = FloatVector(repeating: -.infinity)
    let base = next.mapped { mla_select_eq($0, nothing, zero, $0) }
    let rescale = reference.combined(base) { exp2($0 - $1) }
    reference = next
    return (rescale, base)
  }

  /// Of the reference and an even number of keys' scores; each half of these waits for
  /// itself alone.
  @inline(__always)
  private func largest(_ scores: UnsafeMutablePointer<FloatVector>, keys: Int) -> Row {
    var (even, odd) = (reference, reference)
    for pair in 0..<keys / 2 {
      let p = scores + pair * 2 * Row.width
      even = Row.load(p).combined(even, mla_max)
      odd = Row.load(p + Row.width).combined(odd, mla_max)
    }
    return even.combined(odd, mla_max)
  }

  /// The next reference, where `top` is the largest score. Beside one that is far higher
  /// nothing before counts, if there was anything, and their difference need not be a
  /// number that can be added.
  @inline(__always)
  private func raised(_ reference: FloatVector, _ top: FloatVector) -> FloatVector {
    let rise = top - reference
    let whole = rise - splitExponent(rise).fraction + 1
    let near = mla_select_ge(reference, top, reference, reference + whole)
    return mla_select_ge(rise, FloatVector(repeating: 100), top, near)
  }

  @inline(__always)
  private mutating func add(_ block: Row, times rescale: Row) {
    let before = blocks.combined(rescale) { $0 * $1 }
    blocks = before.combined(block) { $0 + $1 }
    let added = blocks.combined(before) { $0 - $1 }
    let ofBefore = before.combined(blocks.combined(added) { $0 - $1 }) { $0 - $1 }
    let ofBlock = block.combined(added) { $0 - $1 }
    lost = lost.combined(rescale) { $0 * $1 }
      .combined(ofBefore) { $0 + $1 }.combined(ofBlock) { $0 + $1 }
  }
}

/// As they end a partial result's row: a query's, each in all lanes.
extension OnlineSoftmax where Row == Row1 {
  @inline(__always)
  init(_ statistics: UnsafePointer<Float>) {
    reference = Row1(a: FloatVector(repeating: statistics[0]))
    blocks = Row1(a: FloatVector(repeating: statistics[1]))
    lost = Row1(a: FloatVector(repeating: statistics[2]))
  }

  @inline(__always)
  func store(_ statistics: UnsafeMutablePointer<Float>) {
    statistics[0] = reference.a[0]
    statistics[1] = blocks.a[0]
    statistics[2] = lost.a[0]
  }
}

extension OnlineSoftmax {
  /// As `store` has left it.
  @inline(__always)
  init(_ constants: UnsafePointer<FloatVector>) {
    reference = Row.load(constants)
    blocks = Row.load(constants + Row.width)
    lost = Row.load(constants + 2 * Row.width)
  }

  /// As vectors of queries, one behind the other, that end the rows of partial results.
  @inline(__always)
  func store(_ constants: UnsafeMutablePointer<FloatVector>) {
    reference.store(constants)
    blocks.store(constants + Row.width)
    lost.store(constants + 2 * Row.width)
  }

  /// What outputs must be multiplied by in the end: 0 for a query without keys.
  @inline(__always)
  var inverse: Row {
    let zero = FloatVector(repeating: 0)
    let one = FloatVector(repeating: 1)
    return sum.mapped { mla_select_eq($0, zero, zero, one / $0) }
  }
}

/// Scores that a query must not see become -inf: keys after its own position
/// (`firstKey` is the block's first key counted from query 0's), and the
/// padding behind the last key.
@inline(__always)
func maskScores<Row: QueryRow>(
  _: Row.Type, _ scores: UnsafeMutablePointer<FloatVector>, keys: Int, paddedKeys: Int,
  firstKey: Int
) {
  let nothing = FloatVector(repeating: -.infinity)
  for vector in 0..<Row.width {
    // Queries are counted from 0 in each tile, so fp32 holds them exactly.
    var query = FloatVector(repeating: 0)
    for lane in 0..<lanes { query[lane] = Float(vector * lanes + lane) }
    for key in 0..<paddedKeys {
      let p = scores + (key * Row.width + vector)
      let own = key < keys ? Float(firstKey + key) : .infinity
      p.pointee = mla_select_ge(query, FloatVector(repeating: own), p.pointee, nothing)
    }
  }
}
