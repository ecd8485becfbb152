import MLAKernelABI
import MLAShims

/// Attention of up to `queryTile` queries to a range of packed keys.
///
/// Scores are kept transposed, S^T = K Q^T: a lane is a query, so the softmax needs
/// no horizontal reduction, a mask is a comparison of lane numbers, and keys enter
/// as broadcasts. Outputs are not, O = P V: a lane is a value dimension, so that
/// probabilities enter as broadcasts from where they are and rows of outputs are
/// written as they lie.
///
/// Error: scores and outputs are accumulated in fp32 (bf16 pairs: products
/// exact, sums fp32); probabilities carry 1.6e-7 relative error from `exp2`;
/// the sum is taken of unrounded probabilities.
@inline(never)
func attendTile(_ args: UnsafePointer<mla_attend_args>) {
  let a = args.pointee
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
  let scratch = TileScratch(a.scratch.unsafelyUnwrapped, a.dims, width: Row.width)
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
    let visible = VisibleKeys(keys: keys, firstKey: begin - Int(a.causal_offset))
    computeScores(Row.self, a, block, visible, scratch)
    // Query 0 sees the fewest keys: if it sees all of them, so do the others.
    if begin + keys - 1 > Int(a.causal_offset) || keys < groups * rowsPerGroup {
      maskScores(
        Row.self, scratch.scores, keys: keys, paddedKeys: groups * rowsPerGroup,
        firstKey: visible.firstKey)
    }
    if isFirst { fetchOutputs(a) }
    state.update(scratch.scores, keys: groups * rowsPerGroup).store(scratch.constants)
    accumulateOutputs(a, block.valueColumns, visible, isFirst: isFirst, scratch)
    isFirst = false
    begin += keyBlock
  }
  if isFirst {
    scratch.outputs.update(
      repeating: FloatVector(repeating: 0),
      count: Row.width * lanes * ValuePanels(a.dims).vectors)
  }
  finishTile(state, a, scratch)
}

/// S^T = K Q^T * scale * log2(e): the softmax works in powers of two.
@inline(__always)
private func computeScores<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, _ block: PackedBlock, _ visible: VisibleKeys,
  _ scratch: TileScratch
) {
  let scale = FloatVector(repeating: a.scale * log2e)
  let (width, steps) = (Row.width, operandSteps(a.dims))

  @inline(__always)
  func compute<Visible: QueryRow>(_: Visible.Type) {
    let hidden = width - Visible.width
    let none = Group<Visible>.repeating(.repeating(FloatVector(repeating: 0)))
    @inline(__always)
    func store(_ sums: Group<Visible>, _ group: Int) {
      sums.mapped { $0.mapped { $0 * scale } }
        .store(scratch.scores + (group * rowsPerGroup * width + hidden), stride: width)
    }
    let (groups, pitch) = (visible.groups(hidden: hidden, of: width), rowsPerGroup * steps)
    let columns = scratch.columns + hidden
    var group = groups.lowerBound
    while Visible.width == 1 && group + 1 < groups.upperBound {
      var (sums, more) = (none, none)
      accumulate(
        &sums, &more, columns, stride: width, block.keys + group * pitch, pitch: pitch,
        steps: steps)
      store(sums, group)
      store(more, group + 1)
      group += 2
    }
    while group < groups.upperBound {
      var sums = none
      accumulate(&sums, columns, stride: width, block.keys + group * pitch, steps: steps)
      store(sums, group)
      group += 1
    }
  }
  compute(Row.self)
  if width > 2 { compute(Row2.self) }
  if width > 1 { compute(Row1.self) }
}

/// O = O * rescale + P V, a panel of value dimensions after the other, and for each
/// a group of queries after the other: the values stay in the L1 cache.
func accumulateOutputs(
  _ a: mla_attend_args, _ columns: ValueColumns, _ visible: VisibleKeys, isFirst: Bool,
  _ scratch: TileScratch
) {
  let panels = ValuePanels(a.dims)
  var vector = 0
  while vector < panels.vectors {
    let width = panels.width(from: vector)
    let values = columns.panel(vector, width: width)
    let outputs = scratch.outputs + vector
    switch width {
    case 3: accumulatePanel(Row3.self, a, values, outputs, visible, isFirst: isFirst, scratch)
    case 2: accumulatePanel(Row2.self, a, values, outputs, visible, isFirst: isFirst, scratch)
    default: accumulatePanel(Row1.self, a, values, outputs, visible, isFirst: isFirst, scratch)
    }
    vector += width
  }
}

@inline(__always)
private func accumulatePanel<Values: QueryRow>(
  _: Values.Type, _ a: mla_attend_args, _ values: (start: UnsafePointer<FloatVector>, stride: Int),
  _ outputs: UnsafeMutablePointer<FloatVector>, _ visible: VisibleKeys, isFirst: Bool,
  _ scratch: TileScratch
) {
  let probabilities = UnsafeRawPointer(scratch.scores).assumingMemoryBound(to: Float.self)
  let rescale = UnsafeRawPointer(scratch.constants).assumingMemoryBound(to: Float.self)
  let vectors = ValuePanels(a.dims).vectors
  var query = 0
  while query < Int(a.num_queries) {
    let rows = outputs + query * vectors
    var sums =
      isFirst
      ? Group<Values>.repeating(.repeating(FloatVector(repeating: 0)))
      : Group<Values>.load(rows, stride: vectors).scaled(by: rescale + query)
    accumulateVisible(
      &sums, values.start, stride: values.stride, probabilities + query,
      operandStride: scratch.width * lanes, visible, from: query)
    sums.store(rows, stride: vectors)
    query += rowsPerGroup
  }
}

/// `accumulate` over the keys that each of a group's queries sees: a probability of 0
/// would let the others' values through where they are not finite.
@inline(__always)
private func accumulateVisible<Values: QueryRow>(
  _ sums: inout Group<Values>, _ columns: UnsafePointer<FloatVector>, stride: Int,
  _ probabilities: UnsafePointer<Float>, operandStride: Int, _ visible: VisibleKeys,
  from query: Int
) {
  let end = visible.count(to: query + rowsPerGroup - 1)
  let steps = (end + elementsPerOperand - 1) / elementsPerOperand
  var step = visible.count(to: query) / elementsPerOperand
  accumulate(
    &sums, columns, stride: stride, probabilities, operandStride: operandStride, steps: step)
  if end - step * elementsPerOperand == rowsPerGroup - 2 + elementsPerOperand {
    // Each row sees one key more than the one before: no choices are left to run time.
    for diagonal in 0..<(rowsPerGroup - 2 + elementsPerOperand) / elementsPerOperand {
      sums.addDot(
        Values.load(columns + step * stride), probabilities + step * operandStride,
        from: 2 - elementsPerOperand + diagonal * elementsPerOperand)
      step += 1
    }
    return
  }
  while step < steps {
    let key = step * elementsPerOperand
    let row = Values.load(columns + step * stride)
    sums.addDot(
      end - key < elementsPerOperand ? row.mapped(firstElements) : row,
      probabilities + step * operandStride, from: visible.firstKey + key - query)
    step += 1
  }
}

@inline(__always)
func packQueries<Row: QueryRow, Format: ElementFormat>(
  _: Row.Type, _: Format.Type, _ a: mla_attend_args,
  into columns: UnsafeMutablePointer<FloatVector>, turning square: UnsafeMutablePointer<FloatVector>
) {
  let elementBytes = Format.bytes / elementsPerOperand
  let (q, count) = (a.q.unsafelyUnwrapped, Int(a.num_queries))
  let rowStride = Int(a.q_stride) * elementBytes
  for vector in 0..<Row.width {
    let first = vector * lanes
    turnRows(
      Format.self, of: q + first * rowStride, rowStride: rowStride,
      rowBytes: Int(a.dims.qk_head_dim) * elementBytes, rows: count - first,
      steps: operandSteps(a.dims),
      ahead: rowsAhead(q, from: first, of: count, rowStride: rowStride, next: a.next_q),
      turning: square
    ) { step, column in
      columns[step * Row.width + vector] = column
    }
  }
}
