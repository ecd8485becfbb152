import CMLAPrefill
import MLATestSupport

/// The keys that each new token of a step attends to, as mla_layer_forward_args has them.
struct Selection {
  let topk: Int
  /// Rows lie apart, with what no position is between them.
  let stride: Int
  /// Of every token of the step.
  private(set) var entries: [Int32]

  /// - Parameter rows: for each token; shorter ones than the longest end with -1.
  init(_ rows: [[Int]], topk: Int? = nil, gap: Int = 3) {
    self.topk = topk ?? max(1, rows.map(\.count).max() ?? 1)
    stride = self.topk + gap
    entries = [Int32](repeating: -99, count: max(rows.count, 1) * stride)
    for (token, row) in rows.enumerated() { set(token, row) }
  }

  subscript(token: Int) -> [Int] {
    entries[token * stride..<token * stride + topk].map(Int.init)
  }

  mutating func set(_ token: Int, _ row: [Int]) {
    for j in 0..<topk { entries[token * stride + j] = j < row.count ? Int32(row[j]) : -1 }
  }

  /// The same keys otherwise: in another order, some of them twice where others left room.
  func reordered(_ random: inout SplitMix64) -> Selection {
    var other = self
    let tokens = entries.count / stride
    for token in 0..<tokens {
      var row = self[token].filter { $0 >= 0 }
      while row.count < topk, let again = row.first, random.chance(0.7) { row.append(again) }
      row += [Int](repeating: -1, count: topk - row.count)
      other.set(token, row.shuffled(using: &random))
    }
    return other
  }

  /// One head of a request whose first token is `first`, from all of its keys.
  func reference(
    _ first: Int, _ queries: [Double], _ k: [Double], _ v: [Double], _ model: LayerModel
  ) -> ReferenceAttention {
    let (qkDim, vDim) = (model.qkDim, model.vDim)
    var all = ReferenceAttention(q: [], k: [], v: [], qkDim: qkDim, vDim: vDim, scale: 1)
    for i in 0..<queries.count / qkDim {
      let keys = Set(self[first + i].filter { $0 >= 0 }).sorted()
      let one = ReferenceAttention(
        q: Array(queries[i * qkDim..<(i + 1) * qkDim]),
        k: keys.flatMap { k[$0 * qkDim..<($0 + 1) * qkDim] },
        v: keys.flatMap { v[$0 * vDim..<($0 + 1) * vDim] }, qkDim: qkDim, vDim: vDim,
        scale: model.scale)
      all.out += one.out
      all.lse += one.lse
    }
    return all
  }
}

extension LayerStep {
  /// How many keys a token sees that may all be selected.
  func keysSeen(_ request: Int, _ query: Int) -> Int {
    contexts[request] + (contextOnly ? 0 : query + 1)
  }

  /// Rows made for each token from what it sees.
  func rows(_ make: (_ keysSeen: Int) -> [Int]) -> [[Int]] {
    sequences.indices.flatMap { i in
      (0..<ends[i] - contexts[i]).map { make(keysSeen(i, $0)) }
    }
  }

  /// Some of what each token sees, in any order, sometimes nothing or all.
  func select(_ topk: Int, _ random: inout SplitMix64) {
    selection = Selection(
      rows { seen in
        if random.chance(0.05) { return [] }
        let count = random.chance(0.1) ? seen : random.int(1...max(1, seen))
        return Array(Array(0..<seen).shuffled(using: &random).prefix(min(count, topk)))
      }, topk: topk
    ).reordered(&random)
  }

  /// All that each token sees.
  func selectAll(_ random: inout SplitMix64) {
    selection = Selection(rows { Array(0..<$0) }).reordered(&random)
  }
}
