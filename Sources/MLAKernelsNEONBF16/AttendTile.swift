import MLAKernelABI
import MLAShims

/// Attention of up to `queryTile` queries to a range of packed keys: as in
/// SharedKernels/Attention/AttendTile.swift, by multiplications of blocks.
///
/// Scores are S^T = K Q^T, a lane a query; outputs O = P V, rows of queries.
///
/// Error: products are exact, sums fp32, rounded to odd; probabilities carry 1.6e-7 relative
/// error from `exp2` and are rounded to bf16; the sum is taken of unrounded probabilities.
@inline(never)
func attendTile(_ args: UnsafePointer<mla_attend_args>) {
  let a = args.pointee
  let width = vectors(of: Int(a.num_queries))
  // As even as possible, where there are two panels.
  switch width <= vectorsPerPanel ? width : (width + 1) / 2 {
  case 3: attend(Row3.self, a)
  case 2: attend(Row2.self, a)
  default: attend(Row1.self, a)
  }
}

@inline(__always)
private func attend<Row: QueryRow>(_: Row.Type, _ a: mla_attend_args) {
  var first = QueryPanel<Row>(a, from: 0)
  var begin = Int(a.key_begin)
  if Int(a.num_queries) <= Row.width * lanes {
    while begin < first.end {
      first.attend(from: begin)
      begin += keyBlock
    }
  } else {
    var second = QueryPanel<Row>(a, from: Row.width * lanes)
    while begin < second.end {
      first.attend(from: begin)
      second.attend(from: begin)
      begin += keyBlock
    }
    second.finish()
  }
  first.finish()
}

/// Queries of a call whose softmax is one.
private struct QueryPanel<Row: QueryRow> {
  /// Of these queries alone.
  private let args: mla_attend_args
  private let scratch: TileScratch
  /// The first key that none of them sees.
  let end: Int
  private var softmax = OnlineSoftmax<Row>()
  private var isFirst = true

  @inline(__always)
  init(_ a: mla_attend_args, from first: Int) {
    var own = a
    own.q = a.q.unsafelyUnwrapped + first * Int(a.q_stride) * 2
    own.num_queries = min(a.num_queries - Int64(first), Int64(Row.width * lanes))
    own.causal_offset = a.causal_offset &+ Int64(first)
    own.out =
      a.out.unsafelyUnwrapped + first * Int(a.out_stride) * formatBytes(a.out_format)
    if let lse = a.lse { own.lse = lse + first }
    args = own
    end = Int(min(own.key_end, own.causal_offset &+ own.num_queries))
    let room = a.scratch.unsafelyUnwrapped + (first == 0 ? 0 : panelScratchBytes(a.dims))
    scratch = TileScratch(room, a.dims, width: Row.width)
    packColumns(
      SourceRows(
        own.q.unsafelyUnwrapped, stride: a.q_stride, dim: a.dims.qk_head_dim,
        count: own.num_queries, next: a.next_q), from: 0, into: scratch.columns)
  }

  /// To the keys of the block that begins with `begin`.
  @inline(never)
  mutating func attend(from begin: Int) {
    if begin >= end { return }
    let block = PackedBlock(
      UnsafeMutableRawPointer(mutating: args.packed.unsafelyUnwrapped)
        + begin / keyBlock * Int(packedBlockBytes(args.dims)), args.dims)
    let keys = min(keyBlock, end - begin)
    let paddedKeys = (keys + rowsPerGroup - 1) / rowsPerGroup * rowsPerGroup
    let visible = VisibleKeys(keys: keys, firstKey: begin - Int(args.causal_offset))
    if Row.width == 3 {
      computeScores(Row3.self, block, visible)
    } else {
      computeScores(Row2.self, block, visible)
    }
    // Query 0 sees the fewest keys: if it sees all of them, so do the others.
    if visible.count(to: 0) < paddedKeys {
      maskScores(
        Row.self, scratch.scores, keys: keys, paddedKeys: paddedKeys, firstKey: visible.firstKey)
    }
    if isFirst { fetchOutputs(args) }
    softmax.update(scratch.scores, keys: paddedKeys).store(scratch.constants)
    accumulateOutputs(block, visible)
    isFirst = false
  }

  /// S^T = K Q^T * scale * log2(e), a group of keys against all panels of queries. Scores that
  /// no query of a panel sees are left as they are, to be masked.
  @inline(never)
  private func computeScores<Columns: QueryRow>(
    _: Columns.Type, _ block: PackedBlock, _ visible: VisibleKeys
  ) {
    let scale = FloatVector(repeating: args.scale * log2e)
    let pitch = Row.width * lanes
    let scores = UnsafeMutableRawPointer(scratch.scores).assumingMemoryBound(to: Float.self)
    let columns = scratch.columns
    for key in stride(from: 0, to: visible.keys, by: rowsPerGroup) {
      for panel in 0..<columns.panels {
        let first = panel * Columns.width * 4
        if key >= visible.count(to: first + Columns.width * 4 - 1) { continue }
        multiply(
          Columns.self, columns.panel(panel), block.group(key / rowsPerGroup),
          steps: columns.steps, times: scale, into: scores + (key * pitch + first), pitch: pitch)
      }
    }
  }

  /// O = O * rescale + P V, a panel of value dimensions after the other, and for each a group
  /// of queries after the other: the values stay in the L1 cache.
  @inline(never)
  private func accumulateOutputs(_ block: PackedBlock, _ visible: VisibleKeys) {
    block.forEachValueSet { first, set in
      for panel in 0..<set.panels {
        let columns = set.panel(panel)
        let outputs = scratch.outputs + (2 * first + panel * set.fours)
        if set.fours == 3 {
          accumulatePanel(Row3.self, columns, outputs, visible)
        } else {
          accumulatePanel(Row2.self, columns, outputs, visible)
        }
      }
    }
  }

  @inline(__always)
  private func accumulatePanel<Values: QueryRow>(
    _: Values.Type, _ columns: UnsafePointer<FloatVector>,
    _ outputs: UnsafeMutablePointer<FloatVector>, _ visible: VisibleKeys
  ) {
    let probabilities = UnsafeRawPointer(scratch.scores).assumingMemoryBound(to: RowPair.self)
    let rescale = UnsafeRawPointer(scratch.constants).assumingMemoryBound(to: Float.self)
    let pitch = 2 * vectors(of: Int(args.dims.v_head_dim))
    var query = 0
    while query < Int(args.num_queries) {
      let rows = outputs + query / 2 * pitch
      let whole = visible.count(to: query) / elementsPerStep
      var sums =
        isFirst
        ? BlockTile<Values>.zero
        : BlockTile<Values>.load(rows, stride: pitch).scaled(by: rescale + query)
      accumulate(
        &sums, columns, probabilities + query / 4, stride: 4 * Row.width, half: 2 * Row.width,
        steps: whole)
      sums.store(rows, stride: pitch)
      if whole * elementsPerStep < visible.count(to: query + rowsPerGroup - 1) {
        accumulateVisible(
          Values.self, columns, probabilities + query / 4, rows, visible, query: query,
          from: whole)
      }
      query += rowsPerGroup
    }
  }

  /// The steps, from one on, of whose keys each of a group's queries does not see all: a
  /// probability of 0 would let the others' values through where they are not finite.
  @inline(never)
  private func accumulateVisible<Values: QueryRow>(
    _: Values.Type, _ columns: UnsafePointer<FloatVector>,
    _ probabilities: UnsafePointer<RowPair>, _ outputs: UnsafeMutablePointer<FloatVector>,
    _ visible: VisibleKeys, query: Int, from first: Int
  ) {
    let pitch = 2 * vectors(of: Int(args.dims.v_head_dim))
    var sums = BlockTile<Values>.load(outputs, stride: pitch)
    var (step, key) = (first, first * elementsPerStep)
    while key < visible.count(to: query + rowsPerGroup - 1) {
      sums.addDot(
        Values.load(columns + step * Values.width), probabilities + step * 4 * Row.width,
        half: 2 * Row.width
      ) { visible.count(to: query + $0) - key }
      step += 1
      key += elementsPerStep
    }
    sums.store(outputs, stride: pitch)
  }

  @inline(never)
  func finish() {
    if isFirst {
      scratch.outputs.update(
        repeating: FloatVector(repeating: 0),
        count: Row.width * lanes * vectors(of: Int(args.dims.v_head_dim)))
    }
    finishTile(softmax, args, scratch)
  }
}
