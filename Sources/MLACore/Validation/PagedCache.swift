import CMLAPrefill

/// The blocks of a cache that a batch's contexts lie in, checked and copied.
struct PagedCache: Sendable {
  /// [num_blocks, block_size, kv_lora_rank + rope].
  let tensor: TensorView
  /// Each request's in order, of those whose context is looked at.
  private let blocks: FixedArray<Int32>
  /// Where each request's begin.
  private let firstBlocks: FixedArray<Int>

  var blockSize: Int { tensor.shape[1] }

  /// - Parameter tensor: the cache, its width and type checked already.
  init(_ tensor: CallTensor, _ raw: mla_layer_forward_args, _ batch: LayerBatch) throws(MLAError) {
    self.tensor = tensor.view
    guard let table = raw.block_table else { throw .null("block_table") }
    guard raw.max_blocks >= 0 else {
      throw .invalid("max_blocks", raw.max_blocks, "must not be negative")
    }
    guard raw.num_requests <= 1 || raw.block_table_stride >= Int64(raw.max_blocks) else {
      throw .invalid(
        "block_table_stride", raw.block_table_stride, "must be at least max_blocks")
    }
    let (_, overflows) = raw.block_table_stride.multipliedReportingOverflow(
      by: Int64(raw.num_requests - 1) * 4)
    guard !overflows else {
      throw .invalid(
        "block_table_stride", raw.block_table_stride, "reaches beyond the address space")
    }
    (blocks, firstBlocks) = try Self.blocks(table, raw, batch, of: self.tensor)
  }

  private static func blocks(
    _ table: UnsafePointer<Int32>, _ raw: mla_layer_forward_args, _ batch: LayerBatch,
    of tensor: TensorView
  ) throws(MLAError) -> (blocks: FixedArray<Int32>, firsts: FixedArray<Int>) {
    let (blockSize, maximum) = (tensor.shape[1], Int(raw.max_blocks))
    var firsts = try FixedArray<Int>(
      capacity: batch.requests.count + 1, for: "block tables of a batch")
    firsts.append(0)
    for i in batch.requests {
      let context = batch.readsContext(i) ? batch.contextLen(i) : 0
      // Both are at most Int32.max.
      guard context <= maximum * blockSize else {
        throw .invalid(
          "context_lens[\(i)]", context,
          "must not be beyond the \(maximum * blockSize) tokens that max_blocks (\(maximum)) "
            + "blocks of \(blockSize) hold")
      }
      firsts.append(firsts[i] + (context + blockSize - 1) / blockSize)
    }
    var blocks = try FixedArray<Int32>(
      capacity: firsts[batch.requests.count], for: "block tables of a batch")
    for i in batch.requests where firsts[i + 1] > firsts[i] {
      let row = table + (i == 0 ? 0 : i * Int(raw.block_table_stride))
      for place in 0..<firsts[i + 1] - firsts[i] {
        let block = row[place]
        guard block >= 0, Int(block) < tensor.shape[0] else {
          throw .invalid(
            "block_table[\(i)][\(place)]", block,
            "must be 0 to \(tensor.shape[0] - 1), the blocks of kv_cache")
        }
        blocks.append(block)
      }
    }
    return (blocks, firsts)
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
        Int(blocks[firstBlocks[request] + block]) * tensor.strides[0] + offset * tensor.strides[1]
      body(first, row..<end)
      row = end
    }
  }
}
