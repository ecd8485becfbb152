import MLAKernelABI
import MLAShims

/// Most queries of a call: what the register tile holds side by side.
@inline(__always) var queryTile: Int { vectorsPerPanel * lanes }

/// What a call keeps beside its registers; all of it stays in the L1 and L2
/// caches.
///
///     columns  [step][width]         the queries, turned: one vector is the same
///                                    operand of `lanes` queries
///     scores   [keyBlock][width]     then, in place, probabilities
///     outputs  [v_head_dim][width]   fp32, not yet divided by the sum
///     square   [2][lanes]            for turning
struct TileScratch {
  let columns: UnsafeMutablePointer<FloatVector>
  let scores: UnsafeMutablePointer<FloatVector>
  let outputs: UnsafeMutablePointer<FloatVector>
  let square: UnsafeMutablePointer<FloatVector>
  let end: UnsafeMutablePointer<FloatVector>

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer, _ dims: mla_kernel_dims) {
    let width = vectorsPerPanel
    columns = start.assumingMemoryBound(to: FloatVector.self)
    scores = columns + operandSteps(dims) * width
    outputs = scores + keyBlock * width
    square = outputs + paddedToLanes(Int(dims.v_head_dim)) * width
    end = square + 2 * lanes
  }
}

@inline(never)
func scratchBytes(_ dims: mla_kernel_dims) -> Int64 {
  let start = UnsafeMutableRawPointer(bitPattern: 64).unsafelyUnwrapped
  let bytes = UnsafeMutableRawPointer(TileScratch(start, dims).end) - start
  return Int64((bytes + 63) / 64 * 64)
}

/// Attention of up to `queryTile` queries to a range of packed keys.
///
/// Everything is kept transposed, S^T = K Q^T and O^T = V^T P^T: a lane is a
/// query, so the softmax needs no horizontal reduction, a mask is a comparison
/// of lane numbers, and keys and values enter as broadcasts that need no
/// layout of their own beyond being contiguous.
///
/// Error: scores and outputs are accumulated in fp32 (bf16 pairs: products
/// exact, sums fp32); probabilities carry 1.6e-7 relative error from `exp2`;
/// the sum is taken of unrounded probabilities.
@inline(never)
func attendTile(_ args: UnsafePointer<mla_attend_args>?) {
  let a = args.unsafelyUnwrapped.pointee
  if a.num_queries > 2 * lanes {
    attendPanel(Row3.self, a)
  } else if a.num_queries > lanes {
    attendPanel(Row2.self, a)
  } else {
    attendPanel(Row1.self, a)
  }
}

@inline(__always)
private func attendPanel<Row: QueryRow>(_: Row.Type, _ a: mla_attend_args) {
  let scratch = TileScratch(a.scratch.unsafelyUnwrapped, a.dims)
  let blockBytes = Int(packedBlockBytes(a.dims))
  packQueries(Row.self, a, into: scratch.columns, turning: scratch.square)

  var state = OnlineSoftmax<Row>()
  let end = Int(min(a.key_end, a.causal_offset &+ a.num_queries))
  var begin = Int(a.key_begin)
  var isFirst = true
  while begin < end {
    let block = PackedBlock(
      UnsafeMutableRawPointer(mutating: a.packed.unsafelyUnwrapped)
        + begin / keyBlock * blockBytes, a.dims)
    let keys = min(keyBlock, end - begin)
    let groups = (keys + rowsPerGroup - 1) / rowsPerGroup
    computeScores(Row.self, a, block, groups: groups, scratch)
    // Query 0 sees the fewest keys: if it sees all of them, so do the others.
    if begin + keys - 1 > Int(a.causal_offset) || keys < groups * rowsPerGroup {
      maskScores(
        Row.self, scratch.scores, keys: keys, paddedKeys: groups * rowsPerGroup,
        firstKey: begin - Int(a.causal_offset))
    }
    let rescale = state.update(scratch.scores, keys: groups * rowsPerGroup)
    accumulateOutputs(
      Row.self, a, block, keys: groups * rowsPerGroup, rescale: rescale, isFirst: isFirst, scratch)
    isFirst = false
    begin += keyBlock
  }
  if isFirst {
    scratch.outputs.update(
      repeating: FloatVector(repeating: 0),
      count: paddedToLanes(Int(a.dims.v_head_dim)) * Row.width)
  }
  finishTile(state, a, scratch)
}

/// S^T = K Q^T * scale * log2(e): the softmax works in powers of two.
@inline(__always)
private func computeScores<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, _ block: PackedBlock, groups: Int, _ scratch: TileScratch
) {
  let steps = operandSteps(a.dims)
  let scale = FloatVector(repeating: a.scale * log2e)
  for group in 0..<groups {
    var sums = Group<Row>.repeating(.repeating(FloatVector(repeating: 0)))
    accumulate(
      &sums, scratch.columns, block.keys + group * rowsPerGroup * steps, steps: steps)
    sums.mapped { $0.mapped { $0 * scale } }
      .store(scratch.scores + group * rowsPerGroup * Row.width)
  }
}

/// O^T = O^T * rescale + V^T P^T.
@inline(__always)
private func accumulateOutputs<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, _ block: PackedBlock, keys: Int, rescale: Row, isFirst: Bool,
  _ scratch: TileScratch
) {
  let groups = paddedToLanes(Int(a.dims.v_head_dim)) / rowsPerGroup
  for group in 0..<groups {
    let outputs = scratch.outputs + group * rowsPerGroup * Row.width
    var sums =
      isFirst
      ? Group<Row>.repeating(.repeating(FloatVector(repeating: 0)))
      : Group<Row>.load(outputs).mapped { $0.combined(rescale) { $0 * $1 } }
    accumulate(
      &sums, scratch.scores, block.values + group * rowsPerGroup * keyBlock / elementsPerOperand,
      steps: keys / elementsPerOperand)
    sums.store(outputs)
  }
}

@inline(__always)
func packQueries<Row: QueryRow, Format: ElementFormat>(
  _: Row.Type, _: Format.Type, _ a: mla_attend_args,
  into columns: UnsafeMutablePointer<FloatVector>, turning square: UnsafeMutablePointer<FloatVector>
) {
  let elementBytes = Format.bytes / elementsPerOperand
  let rowStride = Int(a.q_stride) * elementBytes
  for vector in 0..<Row.width {
    let first = vector * lanes
    turnRows(
      Format.self, of: a.q.unsafelyUnwrapped + first * rowStride, rowStride: rowStride,
      rowBytes: Int(a.dims.qk_head_dim) * elementBytes, rows: Int(a.num_queries) - first,
      steps: operandSteps(a.dims), turning: square
    ) { step, column in
      columns[step * Row.width + vector] = column
    }
  }
}
