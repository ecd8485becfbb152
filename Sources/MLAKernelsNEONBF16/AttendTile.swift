import MLAKernelABI

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
  var first = panel(Row.self, a, from: 0)
  var begin = Int(a.key_begin)
  if Int(a.num_queries) <= Row.width * lanes {
    while begin < first.end {
      attend(&first, from: begin)
      begin += keyBlock
    }
  } else {
    var second = panel(Row.self, a, from: Row.width * lanes)
    while begin < second.end {
      attend(&first, from: begin)
      attend(&second, from: begin)
      begin += keyBlock
    }
    second.finish()
  }
  first.finish()
}

@inline(__always)
private func panel<Row: QueryRow>(
  _: Row.Type, _ a: mla_attend_args, from first: Int
) -> QueryPanel<Row> {
  var own = a
  own.q = a.q.unsafelyUnwrapped + first * Int(a.q_stride) * 2
  own.num_queries = min(a.num_queries - Int64(first), Int64(Row.width * lanes))
  own.causal_offset = a.causal_offset &+ Int64(first)
  own.out = a.out.unsafelyUnwrapped + first * Int(a.out_stride) * formatBytes(a.out_format)
  if let lse = a.lse { own.lse = lse + first }
  let room = a.scratch.unsafelyUnwrapped + (first == 0 ? 0 : panelScratchBytes(a.dims))
  return QueryPanel(own, TileScratch(room, a.dims, width: Row.width))
}

/// To the keys of the block that begins with `begin`.
@inline(never)
private func attend<Row: QueryRow>(_ panel: inout QueryPanel<Row>, from begin: Int) {
  if begin >= panel.end { return }
  let args = panel.args
  let block = PackedBlock(
    UnsafeMutableRawPointer(mutating: args.packed.unsafelyUnwrapped)
      + begin / keyBlock * Int(packedBlockBytes(args.dims)), args.dims)
  var none = NextRows(mla_attend_rows_args(), chunks: 0)
  panel.attend(
    to: block,
    VisibleKeys(
      keys: min(keyBlock, panel.end - begin), firstKey: begin - Int(args.causal_offset)),
    fetching: &none)
}
