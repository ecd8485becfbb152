import Foundation

/// Attention in float64, straight from the definition.
public struct ReferenceAttention {
  /// `[queries, v_head_dim]`; 0 for a query without keys.
  public var out: [Double]
  /// Natural logarithm; -inf for a query without keys.
  public var lse: [Double]

  /// One head of one request.
  ///
  /// - Parameters:
  ///   - q: `[queries, qkDim]`; k: `[keys, qkDim]`; v: `[keys, vDim]`.
  ///   - keyRange: the keys that count; nil: all.
  ///   - causalOffset: query i sees keys j <= i + causalOffset; nil: no mask.
  public init(
    q: [Double], k: [Double], v: [Double], qkDim: Int, vDim: Int, scale: Double,
    keyRange: Range<Int>? = nil, causalOffset: Int? = nil
  ) {
    let queries = qkDim == 0 ? 0 : q.count / qkDim
    let range = keyRange ?? 0..<(k.count / max(qkDim, 1))
    out = [Double](repeating: 0, count: queries * vDim)
    lse = [Double](repeating: -.infinity, count: queries)
    for i in 0..<queries {
      let end = min(range.upperBound, causalOffset.map { i + $0 + 1 } ?? range.upperBound)
      guard end > range.lowerBound else { continue }
      let scores = (range.lowerBound..<end).map {
        scale * dot(q, i * qkDim, k, $0 * qkDim, qkDim)
      }
      let highest = scores.max() ?? 0
      let weights = scores.map { exp($0 - highest) }
      let sum = weights.reduce(0, +)
      lse[i] = highest + log(sum)
      for (index, weight) in weights.enumerated() {
        accumulate(
          weight / sum, v, (range.lowerBound + index) * vDim, into: &out, i * vDim, vDim)
      }
    }
  }

  /// A ragged batch: request r owns rows `queryStarts[r]..<queryStarts[r + 1]`
  /// of q and `keyStarts[r]..<keyStarts[r + 1]` of k and v. `out` is
  /// `[tokens, heads, vDim]`, `lse` `[heads, tokens]`.
  public init(
    q: PoisonedTensor, k: PoisonedTensor, v: PoisonedTensor, queryStarts: [Int32],
    keyStarts: [Int32], scale: Double, causal: Bool
  ) {
    let (heads, vDim) = (q.heads, v.dim)
    out = [Double](repeating: 0, count: q.rows * heads * vDim)
    lse = [Double](repeating: -.infinity, count: heads * q.rows)
    for head in 0..<heads {
      let (qs, ks, vs) = (q.values(head: head), k.values(head: head), v.values(head: head))
      for request in 0..<max(queryStarts.count - 1, 0) {
        let rows = Int(queryStarts[request])..<Int(queryStarts[request + 1])
        let keys = Int(keyStarts[request])..<Int(keyStarts[request + 1])
        let one = ReferenceAttention(
          q: slice(qs, rows, q.dim), k: slice(ks, keys, k.dim), v: slice(vs, keys, vDim),
          qkDim: q.dim, vDim: vDim, scale: scale, causalOffset: causal ? 0 : nil)
        for (index, row) in rows.enumerated() {
          lse[head * q.rows + row] = one.lse[index]
          for d in 0..<vDim { out[(row * heads + head) * vDim + d] = one.out[index * vDim + d] }
        }
      }
    }
  }

  /// Combines attention of the same rows over disjoint keys: an lse of +inf
  /// counts as -inf, rows that are empty everywhere give 0 and -inf.
  public init(combining partials: [ReferenceAttention], dim: Int) {
    let rows = partials.first?.lse.count ?? 0
    out = [Double](repeating: 0, count: rows * dim)
    lse = [Double](repeating: -.infinity, count: rows)
    for row in 0..<rows {
      let all = partials.map { $0.lse[row] == .infinity ? -.infinity : $0.lse[row] }
      guard let highest = all.max(), highest > -.infinity else { continue }
      let weights = all.map { exp($0 - highest) }
      let sum = weights.reduce(0, +)
      lse[row] = highest + log(sum)
      for (partial, weight) in zip(partials, weights) where weight > 0 {
        accumulate(weight / sum, partial.out, row * dim, into: &out, row * dim, dim)
      }
    }
  }
}

private func slice(_ values: [Double], _ rows: Range<Int>, _ dim: Int) -> [Double] {
  Array(values[rows.lowerBound * dim..<rows.upperBound * dim])
}

private func dot(_ a: [Double], _ aFirst: Int, _ b: [Double], _ bFirst: Int, _ count: Int) -> Double {
  a.withUnsafeBufferPointer { a in
    b.withUnsafeBufferPointer { b in
      // Four sums: one chain of additions would wait for itself.
      var sums = SIMD4<Double>()
      var index = 0
      while index + 4 <= count {
        let x = SIMD4(a[aFirst + index], a[aFirst + index + 1], a[aFirst + index + 2], a[aFirst + index + 3])
        let y = SIMD4(b[bFirst + index], b[bFirst + index + 1], b[bFirst + index + 2], b[bFirst + index + 3])
        sums += x * y
        index += 4
      }
      var sum = sums.sum()
      while index < count {
        sum += a[aFirst + index] * b[bFirst + index]
        index += 1
      }
      return sum
    }
  }
}

private func accumulate(
  _ weight: Double, _ row: [Double], _ rowFirst: Int, into sums: inout [Double], _ first: Int,
  _ count: Int
) {
  row.withUnsafeBufferPointer { row in
    sums.withUnsafeMutableBufferPointer { sums in
      for index in 0..<count { sums[first + index] += weight * row[rowFirst + index] }
    }
  }
}
