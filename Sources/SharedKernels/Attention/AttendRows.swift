import MLAKernelABI
import MLAShims

/// Attention of a token's heads to rows that are keys and values of all of them, as they
/// lie: as `attendTile`, but for what is packed. Rows that each query of a panel needs are
/// few, so that turning them would cost more than it saves.
@inline(never)
func attendRows(_ args: UnsafePointer<mla_attend_rows_args>) {
  let a = args.pointee
  let scratch = RowsScratch(a.scratch.unsafelyUnwrapped, a.dims, queries: Int(a.num_queries))
  let block = RowBlock(a, in: scratch.block)
  var first = 0
  while first < Int(a.num_queries) {
    let tile = tileArguments(a, from: first, atMost: queryTile)
    if tile.num_queries > 2 * lanes {
      attendPanel(Row3.self, a, tile, first / queryTile, block, scratch)
    } else if tile.num_queries > lanes {
      attendPanel(Row2.self, a, tile, first / queryTile, block, scratch)
    } else {
      attendPanel(Row1.self, a, tile, first / queryTile, block, scratch)
    }
    first += queryTile
  }
}

@inline(__always)
private func attendPanel<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_rows_args, _ tile: mla_attend_args, _ panel: Int,
  _ block: RowBlock, _ memory: RowsScratch
) {
  let scratch = memory.tile(panel, width: Row.width)
  let (isFirst, rows) = (a.is_first != 0, Int(a.num_rows))
  var state = OnlineSoftmax<Row>()
  if isFirst {
    packQueries(Row.self, tile, into: scratch.columns, turning: scratch.square)
  } else {
    state = OnlineSoftmax<Row>(memory.softmax(panel))
  }
  if rows > 0 {
    let visible = VisibleKeys(keys: rows, firstKey: -(Int.max / 2))
    let padded = (rows + rowsPerGroup - 1) / rowsPerGroup * rowsPerGroup
    // Panels after the first find it fetched.
    var next = NextRows(a, chunks: panel > 0 ? 0 : padded / rowsPerGroup * chunks(tile.dims))
    computeScores(Row.self, tile, block, padded, scratch, &next)
    if rows < padded {
      maskScores(
        Row.self, scratch.scores, keys: rows, paddedKeys: padded, firstKey: visible.firstKey)
    }
    state.update(scratch.scores, keys: padded).store(scratch.constants)
    accumulateOutputs(tile, block.valueColumns, visible, isFirst: isFirst, scratch)
  } else if isFirst {
    scratch.outputs.update(
      repeating: FloatVector(repeating: 0),
      count: Row.width * lanes * ValuePanels(a.dims).vectors)
  }
  if a.out == nil {
    state.store(memory.softmax(panel))
  } else {
    finishTile(state, tile, scratch)
  }
}

/// As `attendTile`'s, of rows anywhere. Latents have so many dimensions that columns of queries
/// outlast the L1 cache, and rows as they lie do not come as fast as packed ones: slices of the
/// columns pass all rows, one after the other, and sums wait between them where the scores will
/// be. Each is added in the same order as without.
@inline(__always)
private func computeScores<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, _ block: RowBlock, _ rows: Int, _ scratch: TileScratch,
  _ next: inout NextRows
) {
  let scale = FloatVector(repeating: a.scale * log2e)
  let (width, steps) = (Row.width, operandSteps(a.dims))
  let none = Group<Row>.repeating(.repeating(FloatVector(repeating: 0)))
  forEachSlice(of: steps, width: width) { slice in
    let (isFirst, isLast) = (slice.lowerBound == 0, slice.upperBound == steps)
    @inline(__always)
    func begin(_ row: Int) -> Group<Row> {
      isFirst ? none : .load(scratch.scores + row * width, stride: width)
    }
    @inline(__always)
    func store(_ sums: Group<Row>, _ row: Int) {
      (isLast ? sums.mapped { $0.mapped { $0 * scale } } : sums)
        .store(scratch.scores + row * width, stride: width)
    }
    var row = 0
    // Where a row is a single vector, one group would wait for its own sums.
    while width == 1 && row + 2 * rowsPerGroup <= rows {
      let (places, others) = (
        Group<Row>.Places(block.rows + row), Group<Row>.Places(block.rows + (row + rowsPerGroup))
      )
      var (sums, more) = (begin(row), begin(row + rowsPerGroup))
      forEachChunk(of: slice) {
        for step in $0 {
          let column = Row.load(scratch.columns + step)
          sums.addDot(column, at: places, step)
          more.addDot(column, at: others, step)
        }
        next.fetch()
        next.fetch()
      }
      store(sums, row)
      store(more, row + rowsPerGroup)
      row += 2 * rowsPerGroup
    }
    while row < rows {
      let places = Group<Row>.Places(block.rows + row)
      var sums = begin(row)
      forEachChunk(of: slice) {
        for step in $0 {
          sums.addDot(Row.load(scratch.columns + step * width), at: places, step)
        }
        next.fetch()
      }
      store(sums, row)
      row += rowsPerGroup
    }
  }
}

/// Slices of about the same length, of whole chunks but for the last, whose columns leave room
/// in 32 KB for rows that pass by.
@inline(__always)
private func forEachSlice(of steps: Int, width: Int, _ body: (Range<Int>) -> Void) {
  let most = 24 * 1024 / (width * lanes * MemoryLayout<Float>.size)
  let count = (steps + most - 1) / most
  let length =
    (steps + count * stepsPerChunk - 1) / (count * stepsPerChunk) * stepsPerChunk
  forEachPiece(of: 0..<steps, length: length, body)
}

/// Steps between which lines are fetched.
@inline(__always) private var stepsPerChunk: Int { 16 }

@inline(__always)
private func chunks(_ dims: mla_kernel_dims) -> Int {
  (operandSteps(dims) + stepsPerChunk - 1) / stepsPerChunk
}

@inline(__always)
private func forEachChunk(of steps: Range<Int>, _ body: (Range<Int>) -> Void) {
  forEachPiece(of: steps, length: stepsPerChunk, body)
}

@inline(__always)
private func forEachPiece(of steps: Range<Int>, length: Int, _ body: (Range<Int>) -> Void) {
  var step = steps.lowerBound
  while step < steps.upperBound {
    let end = min(step + length, steps.upperBound)
    body(step..<end)
    step = end
  }
}
