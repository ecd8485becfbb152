import CMLAPrefill

/// A caller's struct with a table of blocks: fields as in mla_layer_forward_args.
protocol BlockTableFields {
  var num_requests: Int32 { get }
  var block_table: UnsafePointer<Int32>! { get }
  var block_table_stride: Int64 { get }
  var max_blocks: Int32 { get }
  var block_table_rows: UnsafePointer<Int32>! { get }
  var num_table_rows: Int64 { get }
}

extension mla_layer_forward_args: BlockTableFields {}

/// Which blocks of a cache a request's positions are in, as the caller has it: numbers are
/// checked when they are read, once.
struct BlockTable {
  /// Blocks of a request.
  let width: Int
  /// nil: block i is request i's.
  let table: UnsafePointer<Int32>?
  /// From a row to the next, in entries.
  let stride: Int
  /// The row of each request; nil: row i is request i's.
  private let rows: UnsafePointer<Int32>?
  private let rowCount: Int
  private let blockCount: Int
  /// The cache's name, for messages.
  private let cache: StaticString

  /// - Parameter blockCount: of the cache.
  init(_ raw: some BlockTableFields, blockCount: Int, of cache: StaticString = "kv_cache")
    throws(MLAError)
  {
    (self.blockCount, self.cache) = (blockCount, cache)
    (table, rows) = (raw.block_table, raw.block_table_rows)
    guard raw.max_blocks >= 0 else {
      throw .invalid("max_blocks", raw.max_blocks, "must not be negative")
    }
    guard table != nil else {
      guard raw.max_blocks == 0, blockCount == Int(raw.num_requests) else {
        throw .invalid(
          "block_table", "NULL",
          "must not be NULL unless max_blocks (\(raw.max_blocks)) is 0 and \(cache) has a block "
            + "for each request: \(blockCount) for \(raw.num_requests)")
      }
      guard rows == nil else {
        throw .invalid("block_table_rows", "not NULL", "must be NULL without a block_table")
      }
      (width, stride, rowCount) = (1, 0, 0)
      return
    }
    guard rows == nil || (0...maximumDimension).contains(raw.num_table_rows) else {
      throw .invalid("num_table_rows", raw.num_table_rows, "must be 0 to \(maximumDimension)")
    }
    let count = rows == nil ? Int64(raw.num_requests) : raw.num_table_rows
    guard count <= 1 || raw.block_table_stride >= Int64(raw.max_blocks) else {
      throw .invalid(
        "block_table_stride", raw.block_table_stride, "must be at least max_blocks")
    }
    let (_, overflows) = raw.block_table_stride.multipliedReportingOverflow(by: (count - 1) * 4)
    guard !overflows else {
      throw .invalid(
        "block_table_stride", raw.block_table_stride, "reaches beyond the address space")
    }
    (width, stride, rowCount) = (Int(raw.max_blocks), Int(raw.block_table_stride), Int(count))
  }

  /// Appends a request's blocks of these places.
  func read(_ places: Range<Int>, of request: Int, to blocks: inout FixedArray<Int32>)
    throws(MLAError)
  {
    guard let table else { return blocks.append(Int32(request)) }
    let index = try row(of: request)
    let row = table + (index == 0 ? 0 : index * stride) + places.lowerBound
    let copied = UnsafeBufferPointer(start: blocks.pointer + blocks.count, count: places.count)
    blocks.append(copying: UnsafeBufferPointer(start: row, count: places.count))
    // Blocks of a token are many. Negative numbers count as larger than any other.
    let largest = copied.reduce(0) { max($0, UInt32(bitPattern: $1)) }
    guard largest < blockCount else {
      let place = copied.firstIndex { $0 < 0 || $0 >= blockCount } ?? 0
      throw .invalid(
        "block_table[\(index)][\(places.lowerBound + place)]", copied[place],
        "must be 0 to \(blockCount - 1), the blocks of \(cache)")
    }
  }

  /// A request's row of the table, or block where there is none.
  func row(of request: Int) throws(MLAError) -> Int {
    guard table != nil else { return request }
    let index = Int(rows?[request] ?? Int32(request))
    guard index >= 0, index < rowCount else {
      throw .invalid(
        "block_table_rows[\(request)]", index, "must be 0 to \(rowCount - 1), below num_table_rows")
    }
    return index
  }

  /// How many tokens a request's blocks hold, for messages.
  func capacityText(_ slots: CacheSlots) -> String {
    table == nil
      ? "a block of \(cache) holds"
      : "max_blocks (\(width)) blocks of \(cache), \(slots.blockSize) each, hold"
  }
}
