import MLAKernelABI
import MLAShims

/// Queries of a call whose softmax is one.
struct QueryPanel<Row: QueryRow> {
  /// Of these queries alone.
  let args: mla_attend_args
  private let scratch: TileScratch
  private var softmax: OnlineSoftmax<Row>
  private var isFirst: Bool

  /// Of queries that have attended to nothing.
  @inline(__always)
  init(_ args: mla_attend_args, _ scratch: TileScratch) {
    (self.args, self.scratch) = (args, scratch)
    (softmax, isFirst) = (OnlineSoftmax(), true)
    packColumns(
      SourceRows(
        args.q.unsafelyUnwrapped, stride: args.q_stride, dim: args.dims.qk_head_dim,
        count: args.num_queries, next: args.next_q), from: 0, into: scratch.columns)
  }

  /// As another call has left them.
  @inline(__always)
  init(_ args: mla_attend_args, _ scratch: TileScratch, softmax: OnlineSoftmax<Row>) {
    (self.args, self.scratch, self.softmax, isFirst) = (args, scratch, softmax, false)
  }

  /// Keys of the register tile.
  @inline(__always) static var keysOfATile: Int { Row.width == 3 ? 8 : 12 }

  /// The first key that none of them sees.
  @inline(__always)
  var end: Int { Int(min(args.key_end, args.causal_offset &+ args.num_queries)) }

  @inline(__always)
  mutating func attend(
    to block: PackedBlock, _ visible: VisibleKeys, fetching next: inout NextRows
  ) {
    let paddedKeys = (visible.keys + rowsPerGroup - 1) / rowsPerGroup * rowsPerGroup
    if Row.width == 3 {
      computeScores(Row3.self, block, visible, &next)
    } else {
      computeScores(Row2.self, block, visible, &next)
    }
    // Query 0 sees the fewest keys: if it sees all of them, so do the others.
    if visible.count(to: 0) < paddedKeys {
      maskScores(
        Row.self, scratch.scores, keys: visible.keys, paddedKeys: paddedKeys,
        firstKey: visible.firstKey)
    }
    if isFirst && args.out != nil { fetchOutputs(args) }
    softmax.update(scratch.scores, keys: paddedKeys).store(scratch.constants)
    accumulateOutputs(block, visible)
    isFirst = false
  }

  /// S^T = K Q^T * scale * log2(e), keys that fill the register tile against all panels of
  /// queries. Scores that no query of a panel sees are left as they are, to be masked.
  @inline(never)
  private func computeScores<Columns: QueryRow>(
    _: Columns.Type, _ block: PackedBlock, _ visible: VisibleKeys, _ next: inout NextRows
  ) {
    let scale = FloatVector(repeating: args.scale * log2e)
    let pitch = Row.width * lanes
    let scores = UnsafeMutableRawPointer(scratch.scores).assumingMemoryBound(to: Float.self)
    let columns = scratch.columns
    for key in stride(from: 0, to: visible.keys, by: Self.keysOfATile) {
      for panel in 0..<columns.panels {
        let first = panel * Columns.width * 4
        if key >= visible.count(to: first + Columns.width * 4 - 1) { continue }
        let fours = columns.panel(panel).start
        if Columns.width == 3 {
          multiply(
            Columns.self, fours, block.group(key / rowsPerGroup), steps: columns.steps,
            times: scale, into: scores + (key * pitch + first), pitch: pitch)
        } else {
          multiplyHalves(
            Columns.self, fours, block, from: key / 4, of: (visible.keys + 3) / 4,
            times: scale, into: scores + first, pitch: pitch)
        }
      }
      next.fetch()
    }
  }

  /// As `multiply`, of three halves of groups of keys; where there are fewer, the last one again.
  @inline(__always)
  private func multiplyHalves<Columns: QueryRow>(
    _: Columns.Type, _ columns: UnsafePointer<FloatVector>, _ block: PackedBlock, from first: Int,
    of halves: Int, times scale: FloatVector, into scores: UnsafeMutablePointer<Float>, pitch: Int
  ) {
    let (a, b, c) = (first, min(first + 1, halves - 1), min(first + 2, halves - 1))
    let none = BlockTile<Columns>.zero
    var sums = (none, none, none)
    accumulate(
      &sums, columns, block.half(a), block.half(b), block.half(c), stride: pairsPerGroup,
      steps: block.keySteps)
    sums.0.storeRows(scores + 4 * a * pitch, pitch: pitch, times: scale)
    sums.1.storeRows(scores + 4 * b * pitch, pitch: pitch, times: scale)
    sums.2.storeRows(scores + 4 * c * pitch, pitch: pitch, times: scale)
  }

  /// O = O * rescale + P V, a panel of value dimensions after the other, and for each a group
  /// of queries after the other: the values stay in the L1 cache.
  @inline(never)
  private func accumulateOutputs(_ block: PackedBlock, _ visible: VisibleKeys) {
    block.forEachValueSet { first, set in
      for index in 0..<set.panels {
        let panel = set.panel(index)
        let outputs = scratch.outputs + (2 * first + panel.first)
        if panel.fours == Row3.width {
          accumulateGroups(panel.start, outputs, visible)
        } else {
          accumulateHalves(panel.start, outputs, visible)
        }
      }
    }
  }

  @inline(__always)
  private func accumulateGroups(
    _ columns: UnsafePointer<FloatVector>, _ outputs: UnsafeMutablePointer<FloatVector>,
    _ visible: VisibleKeys
  ) {
    var query = 0
    while query < Int(args.num_queries) {
      let step = visible.count(to: query) / elementsPerStep
      var upper = resumed(Row3.self, outputs, of: query)
      var lower = resumed(Row3.self, outputs, of: query + 4)
      accumulate(
        &upper, &lower, columns, probabilities(of: query), half: 2 * Row.width,
        stride: 4 * Row.width, steps: step)
      store(upper, outputs, of: query, from: step, columns, visible)
      store(lower, outputs, of: query + 4, from: step, columns, visible)
      query += rowsPerGroup
    }
  }

  @inline(__always)
  private func accumulateHalves(
    _ columns: UnsafePointer<FloatVector>, _ outputs: UnsafeMutablePointer<FloatVector>,
    _ visible: VisibleKeys
  ) {
    var query = 0
    while query < Int(args.num_queries) {
      let step = visible.count(to: query) / elementsPerStep
      var sums = resumed(Row5.self, outputs, of: query)
      accumulate(&sums, columns, probabilities(of: query), stride: 4 * Row.width, steps: step)
      store(sums, outputs, of: query, from: step, columns, visible)
      query += 4
    }
  }

  /// A step's of half a group of queries from one on.
  @inline(__always)
  private func probabilities(of query: Int) -> UnsafePointer<RowPair> {
    UnsafeRawPointer(scratch.scores).assumingMemoryBound(to: RowPair.self)
      + (query / rowsPerGroup * 2 + query % rowsPerGroup / 4 * (2 * Row.width))
  }

  /// Fours of columns from one pair of queries to the next.
  @inline(__always)
  private var pitch: Int { fours(of: Int(args.dims.v_head_dim)) }

  /// What half a group of queries has so far.
  @inline(__always)
  private func resumed<Values: QueryRow>(
    _: Values.Type, _ outputs: UnsafePointer<FloatVector>, of query: Int
  ) -> BlockTile<Values> {
    if isFirst { return .zero }
    let rescale = UnsafeRawPointer(scratch.constants).assumingMemoryBound(to: Float.self)
    return .load(outputs + query / 2 * pitch, stride: pitch).scaled(by: rescale + query)
  }

  /// With what is left from a step on, of whose keys each of these queries does not see all: a
  /// probability of 0 would let the others' values through where they are not finite.
  @inline(__always)
  private func store<Values: QueryRow>(
    _ sums: BlockTile<Values>, _ outputs: UnsafeMutablePointer<FloatVector>, of query: Int,
    from first: Int, _ columns: UnsafePointer<FloatVector>, _ visible: VisibleKeys
  ) {
    let rows = outputs + query / 2 * pitch
    sums.store(rows, stride: pitch)
    if first * elementsPerStep < visible.count(to: query + 3) {
      accumulateVisible(Values.self, columns, rows, visible, query: query, from: first)
    }
  }

  @inline(never)
  private func accumulateVisible<Values: QueryRow>(
    _: Values.Type, _ columns: UnsafePointer<FloatVector>,
    _ outputs: UnsafeMutablePointer<FloatVector>, _ visible: VisibleKeys, query: Int,
    from first: Int
  ) {
    var sums = BlockTile<Values>.load(outputs, stride: pitch)
    var (step, key) = (first, first * elementsPerStep)
    while key < visible.count(to: query + 3) {
      sums.addDot(
        Values.load(columns + step * Values.width),
        probabilities(of: query) + step * 4 * Row.width
      ) { visible.count(to: query + $0) - key }
      step += 1
      key += elementsPerStep
    }
    sums.store(outputs, stride: pitch)
  }

  @inline(never)
  func finish() {
    clearIfFirst()
    finishTile(softmax, args, scratch)
  }

  /// For another call.
  @inline(__always)
  func suspend(to constants: UnsafeMutablePointer<FloatVector>) {
    clearIfFirst()
    softmax.store(constants)
  }

  /// Outputs of queries without keys.
  @inline(__always)
  private func clearIfFirst() {
    if !isFirst { return }
    scratch.outputs.update(
      repeating: FloatVector(repeating: 0), count: Row.width * lanes / 2 * pitch)
  }
}
