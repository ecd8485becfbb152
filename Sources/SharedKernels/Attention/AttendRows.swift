import MLAKernelABI
import MLAShims

/// This module's kernel for rows as they lie.
@inline(__always)
func rowsKernel(family: Int) -> mla_rows_kernel {
  mla_rows_kernel(
    family: Int32(truncatingIfNeeded: family), row_block: Int64(keyBlock),
    scratch_bytes: rowsScratchBytes, attend: attendRows)
}

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
    let tile = tileArguments(a, from: first)
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

/// What the shared parts of a tile must know of the queries from one on.
@inline(__always)
private func tileArguments(_ a: mla_attend_rows_args, from first: Int) -> mla_attend_args {
  var tile = mla_attend_args()
  tile.dims = a.dims
  tile.q = a.q.map { $0 + first * Int(a.q_stride) * formatBytes(a.format) }
  tile.q_stride = a.q_stride
  tile.num_queries = min(Int64(queryTile), a.num_queries - Int64(first))
  tile.scale = a.scale
  tile.format = a.format
  tile.out_format = Int32(truncatingIfNeeded: MLA_FORMAT_PARTIAL)
  tile.out = a.out.map { UnsafeMutableRawPointer($0 + first * Int(a.out_stride)) }
  tile.out_stride = a.out_stride
  return tile
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
    computeScores(Row.self, tile, block, padded, scratch)
    if rows < padded {
      maskScores(
        Row.self, scratch.scores, keys: rows, paddedKeys: padded, firstKey: visible.firstKey)
    }
    state.update(scratch.scores, keys: padded).store(scratch.constants)
    accumulateOutputs(tile, block, visible, isFirst: isFirst, scratch)
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

/// As `attendTile`'s, of rows anywhere.
@inline(__always)
private func computeScores<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, _ block: RowBlock, _ rows: Int, _ scratch: TileScratch
) {
  let scale = FloatVector(repeating: a.scale * log2e)
  let steps = operandSteps(a.dims)
  let none = Group<Row>.repeating(.repeating(FloatVector(repeating: 0)))
  @inline(__always)
  func store(_ sums: Group<Row>, _ row: Int) {
    sums.mapped { $0.mapped { $0 * scale } }
      .store(scratch.scores + row * Row.width, stride: Row.width)
  }
  var row = 0
  // Where a row is a single vector, one group would wait for its own sums.
  while Row.width == 1 && row + 2 * rowsPerGroup <= rows {
    let (places, others) = (
      Group<Row>.Places(block.rows + row), Group<Row>.Places(block.rows + (row + rowsPerGroup))
    )
    var (sums, more) = (none, none)
    for step in 0..<steps {
      let column = Row.load(scratch.columns + step)
      sums.addDot(column, at: places, step)
      more.addDot(column, at: others, step)
    }
    store(sums, row)
    store(more, row + rowsPerGroup)
    row += 2 * rowsPerGroup
  }
  while row < rows {
    let places = Group<Row>.Places(block.rows + row)
    var sums = none
    for step in 0..<steps {
      sums.addDot(Row.load(scratch.columns + step * Row.width), at: places, step)
    }
    store(sums, row)
    row += rowsPerGroup
  }
}
