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
    let next = reference.combined(largest(scores, keys: keys), raised)
    // While a query has seen no key, -inf - -inf must not become NaN.
    let zero = FloatVector(repeating: 0)
    let nothing = FloatVector(repeating: -.infinity)
    let base = next.mapped { mla_select_eq($0, nothing, zero, $0) }
    let rescale = reference.combined(base) { exp2($0 - $1) }
    add(exponentiate(scores, keys: keys, reference: base), times: rescale)
    reference = next
    return rescale
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

  /// The next reference, where `top` is the largest score.
  @inline(__always)
  private func raised(_ reference: FloatVector, _ top: FloatVector) -> FloatVector {
    let rise = top - reference
    let whole = rise - splitExponent(rise).fraction + 1
    let later = mla_select_ge(reference, top, reference, reference + whole)
    return mla_select_eq(reference, FloatVector(repeating: -.infinity), top, later)
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
