import MLAKernelABI

/// This module's kernel for rows as they lie.
@inline(__always)
func rowsKernel(family: Int) -> mla_rows_kernel {
  mla_rows_kernel(
    family: Int32(truncatingIfNeeded: family), row_block: Int64(keyBlock),
    scratch_bytes: rowsScratchBytes, attend: attendRows)
}

/// What the shared parts of a tile must know of the queries from one on.
@inline(__always)
func tileArguments(
  _ a: mla_attend_rows_args, from first: Int, atMost count: Int
) -> mla_attend_args {
  var tile = mla_attend_args()
  tile.dims = a.dims
  tile.q = a.q.map { $0 + first * Int(a.q_stride) * formatBytes(a.format) }
  tile.q_stride = a.q_stride
  tile.num_queries = min(Int64(count), a.num_queries - Int64(first))
  tile.scale = a.scale
  tile.format = a.format
  tile.out_format = Int32(truncatingIfNeeded: MLA_FORMAT_PARTIAL)
  tile.out = a.out.map { UnsafeMutableRawPointer($0 + first * Int(a.out_stride)) }
  tile.out_stride = a.out_stride
  return tile
}
