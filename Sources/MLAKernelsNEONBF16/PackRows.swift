import MLAKernelABI
import MLAShims

// Rows are packed a pair at a time, of which each step takes four elements.

/// Eight elements of two rows, of which `bytes` are left and `count` exist, zeros for others: a
/// register for the first step, one for the second.
@inline(__always)
func loadRowPair(_ row: UnsafeRawPointer, stride: Int, count: Int, bytes: Int) -> FloatVector {
  if count >= 2 && bytes >= 16 { return mla_swap_middle(mla_load_halves(row, row + stride)) }
  var rows = FloatVector(repeating: 0)
  withUnsafeMutableBytes(of: &rows) { copy in
    for i in 0..<max(0, min(count, 2)) {
      (copy.baseAddress.unsafelyUnwrapped + 16 * i)
        .copyMemory(from: row + i * stride, byteCount: min(bytes, 16))
    }
  }
  return mla_swap_middle(rows)
}

/// Both steps of a pair, `stepBytes` apart.
@inline(__always)
func storeRowPair(_ pair: FloatVector, _ p: UnsafeMutableRawPointer, stepBytes: Int) {
  mla_store_low_half(p, pair)
  mla_store_high_half(p + stepBytes, pair)
}

/// Rows of memory that are packed, and what is fetched meanwhile.
struct SourceRows {
  let start: UnsafeRawPointer
  let strideBytes: Int
  let rowBytes: Int
  let count: Int
  let next: UnsafeRawPointer?

  @inline(__always)
  init(
    _ start: UnsafeRawPointer, stride: Int64, dim: Int64, count: Int64,
    next: UnsafeRawPointer? = nil
  ) {
    (self.start, self.count, self.next) = (start, Int(count), next)
    (strideBytes, rowBytes) = (2 * Int(stride), 2 * Int(dim))
  }

  /// Packs rows `row` and `row + 1` to `p`.
  @inline(__always)
  func packPair(_ row: Int, to p: UnsafeMutableRawPointer, stepBytes: Int) {
    let source = start + row * strideBytes
    let ahead = ahead(of: row)
    var p = p
    for offset in stride(from: 0, to: rowBytes, by: 16) {
      // Once for each line.
      if offset % 64 == 0 {
        mla_prefetch(ahead + offset)
        mla_prefetch(ahead + strideBytes + offset)
      }
      let pair = loadRowPair(
        source + offset, stride: strideBytes, count: count - row, bytes: rowBytes - offset)
      storeRowPair(pair, p, stepBytes: stepBytes)
      p += 2 * stepBytes
    }
  }

  /// Where what takes the row's place after `lanes` rows lies.
  @inline(__always)
  func ahead(of row: Int) -> UnsafeRawPointer {
    rowsAhead(start, from: row / lanes * lanes, of: count, rowStride: strideBytes, next: next)
      + row % lanes * strideBytes
  }
}

/// Groups of rows, [group][step][pair].
@inline(__always)
func packGroups(_ rows: SourceRows, into groups: UnsafeMutableRawPointer) {
  let groupBytes = steps(of: rows.rowBytes / 2) * 64
  for row in stride(from: 0, to: vectors(of: rows.count) * lanes, by: 2) {
    rows.packPair(
      row, to: groups + (row / rowsPerGroup * groupBytes + row % rowsPerGroup * 8), stepBytes: 64)
  }
}

/// Rows `first` and further as the columns of a set.
@inline(__always)
func packColumns(_ rows: SourceRows, from first: Int, into set: ColumnSet) {
  for column in stride(from: 0, to: set.vectors * lanes, by: 2) {
    let four = set.four(column / 4)
    rows.packPair(
      first + column, to: UnsafeMutableRawPointer(four.start) + column % 4 * 8,
      stepBytes: four.stride * 32)
  }
}
