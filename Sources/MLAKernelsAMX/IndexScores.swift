import MLAKernelABI
import MLAShims

/// Scores of up to `indexBlock` keys for a token's heads: products of queries and keys, whose
/// sums over heads are taken while the next 32 heads' are computed. A lane is a key, so keys
/// are turned, once for all tokens that see them.
///
/// Products are of bf16, and exact; sums are fp32.
@inline(never)
func scoreKeys(_ args: UnsafePointer<mla_index_scores_args>) {
  let a = args.pointee
  let groupBytes = rowGroupBytes(BFloat16Operands.self, a.head_dim)
  let steps = projectionSteps(a.head_dim)
  withStackVectors { first in
    withStackVectors { second in
      var pending = HeadSums(a)
      var isSecond = false
      for key in stride(from: 0, to: Int(a.num_keys), by: 32) {
        for head in stride(from: 0, to: Int(a.num_heads), by: 32) {
          let products = isSecond ? second : first
          var ahead = Prefetch.nothing
          multiplyRows(
            BFloat16Operands.self, a.queries.unsafelyUnwrapped + head / 32 * groupBytes,
            a.keys.unsafelyUnwrapped + key / 32 * groupBytes, steps: steps, into: products,
            prefetching: &ahead, besides: &pending)
          pending.finish()
          pending.begin(products, key: key, head: head)
          isSecond.toggle()
        }
      }
      pending.finish()
    }
  }
}

/// Most keys of a call: with the queries of a token they stay in the L2 cache.
@inline(__always) var indexBlock: Int { 256 }

/// Sums of 32 keys over heads, of which 32 at a time are added, some with each step of the next
/// ones' products.
private struct HeadSums: CompanionWork {
  private let args: mla_index_scores_args
  private var products: UnsafePointer<FloatVector>?
  private var key = 0
  private var head = 0
  /// Behind the last of the heads at hand.
  private var end = 0
  private var sum0 = FloatVector(repeating: 0)
  private var sum1 = FloatVector(repeating: 0)

  @inline(__always)
  init(_ args: mla_index_scores_args) { self.args = args }

  @inline(__always)
  mutating func begin(_ products: UnsafePointer<FloatVector>, key: Int, head: Int) {
    (self.products, self.key, self.head) = (products, key, head)
    end = min(head + 32, Int(args.num_heads))
    if head == 0 { (sum0, sum1) = (FloatVector(repeating: 0), FloatVector(repeating: 0)) }
  }

  @inline(__always)
  mutating func step() { add(upTo: min(head + 8, end)) }

  @inline(__always)
  mutating func finish() {
    if products == nil { return }
    add(upTo: end)
    if end == Int(args.num_heads) { write() }
    products = nil
  }

  @inline(__always)
  private mutating func add(upTo next: Int) {
    let zero = FloatVector(repeating: 0)
    while head < next {
      let product = products.unsafelyUnwrapped + head % 32 * 2
      let weight = FloatVector(repeating: args.weights.unsafelyUnwrapped[head])
      // The second operand where that is NaN.
      sum0 = mla_multiply_add(mla_max(zero, product[0]), weight, sum0)
      sum1 = mla_multiply_add(mla_max(zero, product[1]), weight, sum1)
      head += 1
    }
  }

  @inline(__always)
  private func write() {
    let scores = args.scores.unsafelyUnwrapped + key
    var (score0, score1) = (sum0, sum1)
    if let scales = args.scales {
      score0 *= mla_load_f32(scales + key)
      score1 *= mla_load_f32(scales + (key + lanes))
    }
    mla_store_f32(scores, score0)
    mla_store_f32(scores + lanes, score1)
  }
}
