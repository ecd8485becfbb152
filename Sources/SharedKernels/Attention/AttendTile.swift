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
  // Where a key weighs 2^-130 of another, arithmetic with its probability would
  // take many times as long for nothing.
  let control = mla_vector_control()
  mla_set_vector_control(MLA_VECTOR_CONTROL_FLUSHING)

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
    let diagonal = Diagonal(groups: groups, firstKey: begin - Int(a.causal_offset))
    computeScores(Row.self, a, block, diagonal, scratch)
    // Query 0 sees the fewest keys: if it sees all of them, so do the others.
    if begin + keys - 1 > Int(a.causal_offset) || keys < groups * rowsPerGroup {
      maskScores(
        Row.self, scratch.scores, keys: keys, paddedKeys: groups * rowsPerGroup,
        firstKey: diagonal.firstKey)
    }
    let rescale = state.update(scratch.scores, keys: groups * rowsPerGroup)
    accumulateOutputs(
      Row.self, a, block, diagonal, rescale: rescale, isFirst: isFirst, scratch)
    isFirst = false
    begin += keyBlock
  }
  if isFirst {
    scratch.outputs.update(
      repeating: FloatVector(repeating: 0),
      count: paddedToLanes(Int(a.dims.v_head_dim)) * Row.width)
  }
  mla_set_vector_control(control)
  finishTile(state, a, scratch)
}

/// How a block's groups of keys meet a panel's vectors of queries. A group hidden
/// from all queries of the first vectors is computed for the others only:
///
///                 vector  0  1  2
///     groups below end(0)  x  x  x      keys that some query of each vector sees
///     groups below end(1)     x  x
///     the other groups           x
///
/// What is left out is what `maskScores` makes -inf, of which 0 remains.
private struct Diagonal {
  let groups: Int
  /// The block's first key, counted from query 0's own.
  let firstKey: Int

  /// Groups that the vectors behind the first `hidden` need.
  @inline(__always)
  func groups(hidden: Int, of width: Int) -> Range<Int> {
    let begin = hidden == 0 ? 0 : end(hidden - 1)
    return begin..<(hidden == width - 1 ? groups : end(hidden))
  }

  /// The first group that vector `vector` sees nothing of.
  @inline(__always)
  private func end(_ vector: Int) -> Int {
    let keys = max(0, (vector + 1) * lanes - firstKey)
    return min(groups, (keys + rowsPerGroup - 1) / rowsPerGroup)
  }
}

/// S^T = K Q^T * scale * log2(e): the softmax works in powers of two.
@inline(__always)
private func computeScores<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, _ block: PackedBlock, _ diagonal: Diagonal,
  _ scratch: TileScratch
) {
  let scale = FloatVector(repeating: a.scale * log2e)
  let (width, steps) = (Row.width, operandSteps(a.dims))

  @inline(__always)
  func compute<Visible: QueryRow>(_: Visible.Type) {
    let hidden = width - Visible.width
    for group in diagonal.groups(hidden: hidden, of: width) {
      var sums = Group<Visible>.repeating(.repeating(FloatVector(repeating: 0)))
      accumulate(
        &sums, scratch.columns + hidden, stride: width,
        block.keys + group * rowsPerGroup * steps, steps: steps)
      sums.mapped { $0.mapped { $0 * scale } }
        .store(scratch.scores + (group * rowsPerGroup * width + hidden), stride: width)
    }
  }
  compute(Row.self)
  if width > 2 { compute(Row2.self) }
  if width > 1 { compute(Row1.self) }
}

/// O^T = O^T * rescale + V^T P^T.
@inline(__always)
private func accumulateOutputs<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, _ block: PackedBlock, _ diagonal: Diagonal, rescale: Row,
  isFirst: Bool, _ scratch: TileScratch
) {
  let width = Row.width
  for group in 0..<paddedToLanes(Int(a.dims.v_head_dim)) / rowsPerGroup {
    let outputs = scratch.outputs + group * rowsPerGroup * width
    let values = block.values + group * rowsPerGroup * keyBlock / elementsPerOperand

    @inline(__always)
    func add<Visible: QueryRow>(_ sums: inout Group<Visible>) {
      let hidden = width - Visible.width
      let keys = diagonal.groups(hidden: hidden, of: width)
      let first = keys.lowerBound * rowsPerGroup / elementsPerOperand
      accumulate(
        &sums, scratch.scores + (first * width + hidden), stride: width,
        values + first * rowsPerGroup, steps: keys.count * rowsPerGroup / elementsPerOperand)
      sums.store(outputs + hidden, stride: width)
    }
    @inline(__always)
    func addMore<Visible: QueryRow>(_: Visible.Type) {
      let hidden = width - Visible.width
      if diagonal.groups(hidden: hidden, of: width).isEmpty { return }
      var sums = Group<Visible>.load(outputs + hidden, stride: width)
      add(&sums)
    }
    var sums =
      isFirst
      ? Group<Row>.repeating(.repeating(FloatVector(repeating: 0)))
      : Group<Row>.load(outputs, stride: width).mapped { $0.combined(rescale) { $0 * $1 } }
    add(&sums)
    if width > 2 { addMore(Row2.self) }
    if width > 1 { addMore(Row1.self) }
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
