import MLAKernelABI
import MLAShims

/// This module's indexer, ready for a table. Keys are packed as a projection's weights are, a
/// column each, as many as a set's two full panels have; a token's heads as its tokens.
@inline(__always)
func indexKernel(family: Int) -> mla_index_kernel {
  mla_index_kernel(
    family: Int32(truncatingIfNeeded: family), key_block: Int64(Row3.width * lanes),
    packed_keys_bytes: packedWeightsBytes, packed_queries_bytes: packedTokensBytes,
    pack_keys: packWeights, pack_queries: packTokens, score: scoreKeys)
}

/// A group of heads after the other; a lane is a key, whether there is one or not.
///
/// Error: of a product's n elements pairs are added up, and these n / 2 sums, each rounded to odd,
/// by less than 2^-23 of itself: in all as n sums that are rounded to nearest.
@inline(never)
func scoreKeys(_ args: UnsafePointer<mla_index_scores_args>) {
  let a = args.pointee
  let zero = FloatVector(repeating: 0)
  let weights = a.weights.unsafelyUnwrapped
  var scores = Row3.repeating(zero)
  forEachProduct(
    of: a.queries.unsafelyUnwrapped, a.num_heads, with: a.keys.unsafelyUnwrapped, a.num_keys,
    rowDim: a.head_dim
  ) { head, _, _, products in
    for row in 0..<min(rowsPerGroup, Int(a.num_heads) - head) {
      let weight = FloatVector(repeating: weights[head + row])
      // The second operand where that is NaN.
      scores = scores.combined(Row3.load(products + row * vectorsPerSet)) {
        mla_multiply_add(mla_max(zero, $1), weight, $0)
      }
    }
  }
  if let scales = a.scales {
    let row = Row3.load(UnsafeRawPointer(scales).assumingMemoryBound(to: FloatVector.self))
    scores = scores.combined(row) { $0 * $1 }
  }
  scores.store(
    UnsafeMutableRawPointer(a.scores.unsafelyUnwrapped).assumingMemoryBound(to: FloatVector.self))
}
