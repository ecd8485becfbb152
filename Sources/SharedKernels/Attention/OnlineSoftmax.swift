import MLAShims

/// The running softmax of a panel of queries, in powers of two: the largest
/// score so far and the sum of 2^(score - largest), one lane a query.
///
/// The largest score is always the true one, so no order of scores costs more
/// than another.
struct OnlineSoftmax<Row: QueryRow> {
  var largest = Row.repeating(FloatVector(repeating: -.infinity))
  var sum = Row.repeating(FloatVector(repeating: 0))

  /// Takes in the scores of a block, which become probabilities. Returns what
  /// the outputs so far must be multiplied by.
  @inline(__always)
  mutating func update(_ scores: UnsafeMutablePointer<FloatVector>, keys: Int) -> Row {
    var top = largest
    for key in 0..<keys {
      top = Row.load(scores + key * Row.width).combined(top, mla_max)
    }
    // While a query has seen no key, -inf - -inf must not become NaN.
    let zero = FloatVector(repeating: 0)
    let nothing = FloatVector(repeating: -.infinity)
    let reference = top.mapped { mla_select_eq($0, nothing, zero, $0) }
    let rescale = largest.combined(reference) { exp2($0 - $1) }
    let blockSum = exponentiate(scores, keys: keys, reference: reference)
    sum = sum.combined(rescale) { $0 * $1 }.combined(blockSum) { $0 + $1 }
    largest = top
    return rescale
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
