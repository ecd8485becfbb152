import MLAKernelABI
import MLAShims

/// What a panel of queries keeps beside its registers:
///
///     columns    a set                         the queries
///     outputs    [pair of queries][four]       blocks of fp32, not yet divided by the sum
///     scores     [keyBlock][width]             then, in place, probabilities: see `exponentiate`
///     constants  [3][width]                    of the queries, a lane each
///
/// What is shared by panels that take turns may lie apart: scores and constants.
struct TileScratch {
  let columns: ColumnSet
  let outputs: UnsafeMutablePointer<FloatVector>
  let scores: UnsafeMutablePointer<FloatVector>
  let constants: UnsafeMutablePointer<FloatVector>
  /// Of the panel's own part, and of the shared one.
  let ends: (UnsafeMutablePointer<FloatVector>, UnsafeMutablePointer<FloatVector>)

  @inline(__always)
  init(
    _ start: UnsafeMutableRawPointer, shared: UnsafeMutableRawPointer? = nil,
    _ dims: mla_kernel_dims, width: Int
  ) {
    columns = ColumnSet(
      queries: start.assumingMemoryBound(to: FloatVector.self), vectors: width,
      steps: steps(of: Int(dims.qk_head_dim)))
    outputs = columns.start + 2 * width * columns.steps
    let end = outputs + width * lanes / 2 * fours(of: Int(dims.v_head_dim))
    scores = shared.map { $0.assumingMemoryBound(to: FloatVector.self) } ?? end
    constants = scores + keyBlock * width
    ends = (end, constants + 3 * width)
  }

  /// A vector of a query's outputs.
  @inline(__always)
  func output(of query: Int, vector: Int, _ dims: mla_kernel_dims) -> FloatVector {
    let blocks = outputs + (query / 2 * fours(of: Int(dims.v_head_dim)) + 2 * vector)
    let (a, b) = (mla_swap_middle(blocks[0]), mla_swap_middle(blocks[1]))
    return query % 2 == 0 ? mla_low_halves(a, b) : mla_high_halves(a, b)
  }
}

@inline(never)
func scratchBytes(_ dims: mla_kernel_dims) -> Int64 { 2 * Int64(panelScratchBytes(dims)) }

@inline(__always)
func panelScratchBytes(_ dims: mla_kernel_dims) -> Int {
  let start = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
  let scratch = TileScratch(start, dims, width: vectorsPerPanel)
  return (UnsafeMutableRawPointer(scratch.ends.1) - start + 63) / 64 * 64
}
