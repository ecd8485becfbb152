import MLAKernelABI
import MLAShims

/// Attention of a token's heads to rows that are keys and values of all of them: these are
/// packed once, for all panels of queries, and then are a block like any other.
@inline(never)
func attendRows(_ args: UnsafePointer<mla_attend_rows_args>) {
  let a = args.pointee
  let scratch = RowsScratch(a.scratch.unsafelyUnwrapped, a.dims, queries: Int(a.num_queries))
  packRows(a, into: scratch.block)
  for panel in 0..<panels(of: Int(a.num_queries)) {
    let queries = vectorsPerPanel * lanes
    let tile = tileArguments(a, from: panel * queries, atMost: queries)
    switch vectors(of: Int(tile.num_queries)) {
    case 3: attendPanel(Row3.self, a, tile, panel, scratch)
    case 2: attendPanel(Row2.self, a, tile, panel, scratch)
    default: attendPanel(Row1.self, a, tile, panel, scratch)
    }
  }
}

@inline(__always)
private func attendPanel<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_rows_args, _ tile: mla_attend_args, _ index: Int,
  _ memory: RowsScratch
) {
  let scratch = memory.tile(index, width: Row.width)
  var panel =
    a.is_first != 0
    ? QueryPanel<Row>(tile, scratch)
    : QueryPanel(tile, scratch, softmax: OnlineSoftmax(memory.softmax(index)))
  let rows = Int(a.num_rows)
  if rows > 0 {
    let keys = QueryPanel<Row>.keysOfATile
    // Panels after the first find it fetched.
    var next = NextRows(a, chunks: index > 0 ? 0 : (rows + keys - 1) / keys)
    panel.attend(
      to: memory.block, VisibleKeys(keys: rows, firstKey: -(Int.max / 2)), fetching: &next)
  }
  if a.out == nil {
    panel.suspend(to: memory.softmax(index))
  } else {
    panel.finish()
  }
}

/// A step's four rows at a time; where there are fewer, the last one again, whose scores are
/// masked and whose values are left out.
@inline(never)
private func packRows(_ a: mla_attend_rows_args, into block: PackedBlock) {
  let count = Int(a.num_rows)
  for row in stride(from: 0, to: count, by: elementsPerStep) {
    @inline(__always) func place(_ i: Int) -> UnsafeRawPointer {
      a.rows.unsafelyUnwrapped[min(row + i, count - 1)].unsafelyUnwrapped
    }
    let rows = (place(0), place(1), place(2), place(3))
    let keys = block.half(row / elementsPerStep)
    @inline(__always) @discardableResult
    func packKeys(_ vector: Int) -> (FloatVector, FloatVector) {
      @inline(__always) func pair(_ a: UnsafeRawPointer, _ b: UnsafeRawPointer) -> FloatVector {
        mla_swap_middle(mla_load_halves(a + vector * 16, b + vector * 16))
      }
      let (upper, lower) = (pair(rows.0, rows.1), pair(rows.2, rows.3))
      let keys = keys + vector * 2 * pairsPerGroup
      storeRowPair(upper, keys, stepBytes: 64)
      storeRowPair(lower, keys + 1, stepBytes: 64)
      return (upper, lower)
    }
    block.forEachValueSet { first, set in
      for vector in 0..<set.vectors {
        let (upper, lower) = packKeys(first + vector)
        storeColumns(upper, lower, to: set, vector, step: row / elementsPerStep)
      }
    }
    for vector in vectors(of: Int(a.dims.v_head_dim))..<block.keySteps / 2 {
      packKeys(vector)
    }
  }
}
