import MLAKernelABI
import MLAShims

/// Up to so many tokens take turns, each with weights in the lanes: side by side in a vector's
/// lanes they would leave most of these empty.
@inline(__always) var mostFewTokens: Int { max(1, lanes / 4) }

/// A linear layer for tokens too few to fill a vector.
///
///     tokens    [step][lanes], a token's operand broadcast
///     weights   [weight / group][step][group], `lanes` of a step from the two groups that
///               hold them
///     sums      `vectorsAtOnce` vectors of weights, which hide the latency of addition
///
/// Each product is added to its sum in the order of the other way, so that bits are the same.
/// Weights are read once, one after the other: memory's speed is what bounds it.
@inline(__always)
func projectFewTokens<Format: ElementFormat>(_: Format.Type, _ a: mla_project_args) {
  let steps = operandSteps(of: Int(a.row_dim))
  let tokens = a.tokens.unsafelyUnwrapped.assumingMemoryBound(to: Float.self)
  let weights = a.weights.unsafelyUnwrapped.assumingMemoryBound(to: Float.self)
  let numWeights = Int(a.num_weights)
  withStackVectors { sums in
    var weight = 0
    while weight < numWeights {
      let left = paddedToLanes(numWeights - weight) / lanes
      let vectors = left < vectorsAtOnce ? 1 : vectorsAtOnce
      for token in 0..<Int(a.num_tokens) {
        multiplyToken(
          tokens + token, weights + weight * steps, steps: steps, vectors: vectors, into: sums)
        let row = a.out.unsafelyUnwrapped + token * Int(a.out_stride) * Format.bytes
        for vector in 0..<vectors {
          let first = weight + vector * lanes
          storeTail(Format.self, sums[vector], row + first * Format.bytes, numWeights - first)
        }
      }
      weight += vectors * lanes
    }
  }
}

@inline(__always) private var vectorsAtOnce: Int { 4 }

/// One function, whatever is done with the sums.
@inline(never)
private func multiplyToken(
  _ token: UnsafePointer<Float>, _ weights: UnsafePointer<Float>, steps: Int, vectors: Int,
  into sums: UnsafeMutablePointer<FloatVector>
) {
  let zero = FloatVector(repeating: 0)
  var (a, b, c, d) = (zero, zero, zero, zero)
  let vector = lanes * steps
  if vectors == vectorsAtOnce {
    for step in 0..<steps {
      let operand = token[step * lanes]
      let panel = weights + step * rowsPerGroup
      a = addDot(a, weightVector(panel, steps: steps), operand)
      b = addDot(b, weightVector(panel + vector, steps: steps), operand)
      c = addDot(c, weightVector(panel + 2 * vector, steps: steps), operand)
      d = addDot(d, weightVector(panel + 3 * vector, steps: steps), operand)
    }
    (sums[1], sums[2], sums[3]) = (b, c, d)
  } else {
    for step in 0..<steps {
      a = addDot(a, weightVector(weights + step * rowsPerGroup, steps: steps), token[step * lanes])
    }
  }
  sums[0] = a
}

/// The operands of `lanes` weights of a step.
@inline(__always)
private func weightVector(_ group: UnsafePointer<Float>, steps: Int) -> FloatVector {
  rowsPerGroup == lanes ? mla_load_f32(group) : mla_load_halves(group, group + rowsPerGroup * steps)
}
