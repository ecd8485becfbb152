import CMLAPrefill

/// The blocks of a cache that a batch's contexts lie in, checked and copied.
struct PagedCache: Sendable {
  /// [num_blocks, block_size, kv_lora_rank + rope].
  let tensor: TensorView
  /// For each request its blocks in order; empty where none is looked at.
  private let blocks: [[Int32]]

  var blockSize: Int { tensor.shape[1] }

  /// - Parameter tensor: the cache, its width and type checked already.
  init(_ tensor: TensorView, _ raw: mla_layer_forward_args, _ batch: LayerBatch) throws(MLAError) {
    self.tensor = tensor
    guard let table = raw.block_table else { throw .null("block_table") }
    guard raw.max_blocks >= 0 else {
      throw .invalid("max_blocks", raw.max_blocks, "must not be negative")
    }
    guard raw.num_requests <= 1 || raw.block_table_stride >= Int64(raw.max_blocks) else {
      throw .invalid(
        "block_table_stride", raw.block_table_stride, "must be at least max_blocks")
    }
    let (_, overflows) = raw.block_table_stride.multipliedReportingOverflow(
      by: Int64(raw.num_requests) * 4)
    guard !overflows else {
      throw .invalid(
        "block_table_stride", raw.block_table_stride, "reaches beyond the address space")
    }
    var blocks: [[Int32]] = []
    for i in batch.contextLens.indices {
      guard batch.readsContext(i) else {
        blocks.append([])
        continue
      }
      let row = table + (i == 0 ? 0 : i * Int(raw.block_table_stride))
      blocks.append(
        try Self.blocks(
          row, request: i, context: batch.contextLens[i], maximum: Int(raw.max_blocks), of: tensor))
    }
    self.blocks = blocks
  }

  private static func blocks(
    _ row: UnsafePointer<Int32>, request: Int, context: Int, maximum: Int, of tensor: TensorView
  ) throws(MLAError) -> [Int32] {
    let blockSize = tensor.shape[1]
    // Both are at most Int32.max.
    guard context <= maximum * blockSize else {
      throw .invalid(
        "context_lens[\(request)]", context,
        "must not be beyond the \(maximum * blockSize) tokens that max_blocks (\(maximum)) "
          + "blocks of \(blockSize) hold")
    }
    let blocks = Array(
      UnsafeBufferPointer(start: row, count: (context + blockSize - 1) / blockSize))
    if let i = blocks.firstIndex(where: { $0 < 0 || Int($0) >= tensor.shape[0] }) {
      throw .invalid(
        "block_table[\(request)][\(i)]", blocks[i],
        "must be 0 to \(tensor.shape[0] - 1), the blocks of kv_cache")
    }
    return blocks
  }

  /// Calls `body` for each run of a request's rows that lie side by side.
  ///
  /// - Parameter rows: some of its context.
  func forEachRun(
    _ rows: Range<Int>, of request: Int,
    _ body: (_ first: Int, _ rows: Range<Int>) -> Void
  ) {
    var row = rows.lowerBound
    while row < rows.upperBound {
      let (block, offset) = row.quotientAndRemainder(dividingBy: blockSize)
      let end = min(rows.upperBound, row + blockSize - offset)
      let first =
        Int(blocks[request][block]) * tensor.strides[0] + offset * tensor.strides[1]
      body(first, row..<end)
      row = end
    }
  }
}
