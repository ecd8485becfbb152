import MLAKernelABI
import MLAShims

/// This module's indexer, ready for a table. Keys are packed as a projection's tokens are, a
/// lane each; a token's heads as its weights, whose operands are broadcast.
@inline(__always)
func indexKernel(family: Int) -> mla_index_kernel {
  mla_index_kernel(
    family: Int32(truncatingIfNeeded: family), key_block: Int64(vectorsPerPanel * lanes),
    packed_keys_bytes: packedTokensBytes, packed_queries_bytes: packedWeightsBytes,
    pack_keys: packTokens, pack_queries: packWeights, score: scoreKeys)
}

@inline(never)
func scoreKeys(_ args: UnsafePointer<mla_index_scores_args>) {
  let a = args.pointee
  switch TokenChunks(a.num_keys).width {
  case 3: scoreKeys(Row3.self, a)
  case 2: scoreKeys(Row2.self, a)
  default: scoreKeys(Row1.self, a)
  }
}

/// A group of heads after the other, whose products never leave the registers.
@inline(__always)
private func scoreKeys<Row: QueryRow>(_: Row.Type, _ a: mla_index_scores_args) {
  let zero = FloatVector(repeating: 0)
  let steps = operandSteps(of: Int(a.head_dim))
  let columns = a.keys.unsafelyUnwrapped.assumingMemoryBound(to: FloatVector.self)
  let panels = a.queries.unsafelyUnwrapped.assumingMemoryBound(to: Float.self)
  let weights = a.weights.unsafelyUnwrapped
  var scores = Row.repeating(zero)
  var head = 0
  while head < Int(a.num_heads) {
    var products = Group<Row>.repeating(.repeating(zero))
    accumulate(&products, columns, stride: Row.width, panels + head * steps, steps: steps)
    // Of heads that do not exist a product may be NaN.
    scores = products.folded(
      into: scores, rows: Int(a.num_heads) - head, first: head
    ) { sum, product, head in
      let weight = FloatVector(repeating: weights[head])
      // The second operand where that is NaN.
      return sum.combined(product) { mla_multiply_add(mla_max(zero, $1), weight, $0) }
    }
    head += rowsPerGroup
  }
  if let scales = a.scales {
    let row = Row.load(UnsafeRawPointer(scales).assumingMemoryBound(to: FloatVector.self))
    scores = scores.combined(row) { $0 * $1 }
  }
  scores.store(
    UnsafeMutableRawPointer(a.scores.unsafelyUnwrapped).assumingMemoryBound(to: FloatVector.self))
}
