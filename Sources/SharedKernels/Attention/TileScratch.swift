import MLAKernelABI

/// Most queries of a call: what the register tile holds side by side.
@inline(__always) var queryTile: Int { vectorsPerPanel * lanes }

/// What a call keeps beside its registers; all of it stays in the L1 and L2
/// caches.
///
///     columns  [step][width]         the queries, turned: one vector is the same
///                                    operand of `lanes` queries
///     scores     [keyBlock][width]       then, in place, probabilities: an operand
///                                        of a query for each step
///     outputs    [queries][v_head_dim]   fp32, not yet divided by the sum
///     constants  [3][width]              of the queries, a lane each
///     square     [lanes]                 for turning
struct TileScratch {
  /// Vectors of queries side by side.
  let width: Int
  let columns: UnsafeMutablePointer<FloatVector>
  let scores: UnsafeMutablePointer<FloatVector>
  let outputs: UnsafeMutablePointer<FloatVector>
  let constants: UnsafeMutablePointer<FloatVector>
  let square: UnsafeMutablePointer<FloatVector>
  let end: UnsafeMutablePointer<FloatVector>

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer, _ dims: mla_kernel_dims, width: Int) {
    self.width = width
    columns = start.assumingMemoryBound(to: FloatVector.self)
    scores = columns + operandSteps(dims) * width
    outputs = scores + keyBlock * width
    constants = outputs + width * lanes * ValuePanels(dims).vectors
    square = constants + 3 * width
    end = square + lanes
  }

  /// Of parts that lie wherever they do.
  @inline(__always)
  init(
    width: Int, columns: UnsafeMutablePointer<FloatVector>,
    scores: UnsafeMutablePointer<FloatVector>, outputs: UnsafeMutablePointer<FloatVector>,
    constants: UnsafeMutablePointer<FloatVector>, square: UnsafeMutablePointer<FloatVector>
  ) {
    (self.width, self.columns, self.scores) = (width, columns, scores)
    (self.outputs, self.constants, self.square) = (outputs, constants, square)
    end = square + lanes
  }

  /// A vector of a query's outputs.
  @inline(__always)
  func output(of query: Int, vector: Int, _ dims: mla_kernel_dims) -> FloatVector {
    outputs[query * ValuePanels(dims).vectors + vector]
  }
}

@inline(never)
func scratchBytes(_ dims: mla_kernel_dims) -> Int64 {
  let start = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
  let scratch = TileScratch(start, dims, width: vectorsPerPanel)
  let bytes = UnsafeMutableRawPointer(scratch.end) - start
  return Int64((bytes + 63) / 64 * 64)
}
