import CMLAPrefill

extension SelectedKeys {
  /// The caller's, each checked against what its token sees.
  init(_ raw: mla_layer_forward_args, of batch: LayerBatch) throws(MLAError) {
    guard let indices = raw.topk_indices else { throw .null("topk_indices") }
    guard Int(bitPattern: indices) % MemoryLayout<Int32>.alignment == 0 else {
      throw .invalid("topk_indices", "\(indices)", "must be aligned to 4 bytes")
    }
    guard raw.topk >= 1 else { throw .invalid("topk", raw.topk, "must be at least 1") }
    guard raw.topk_stride >= Int64(raw.topk) else {
      throw .invalid("topk_stride", raw.topk_stride, "must be at least topk (\(raw.topk))")
    }
    let rows = Int64(batch.queryStartLoc.rowCount)
    let (_, overflows) = raw.topk_stride.multipliedReportingOverflow(by: max(rows, 1) * 4)
    guard !overflows else {
      throw .invalid("topk_stride", raw.topk_stride, "reaches beyond the address space")
    }
    self.init(indices, stride: Int(raw.topk_stride), topk: Int(raw.topk))
    for request in batch.requests {
      let span = batch.span(request)
      for query in 0..<span.queryCount {
        try check(span.queryBegin + query, limit: span.keysSeen(by: query), batch)
      }
    }
  }

  private func check(_ token: Int, limit: Int, _ batch: LayerBatch) throws(MLAError) {
    let row = row(token)
    // -1 is 0 here; negative numbers below it are larger than any limit.
    let largest = row.reduce(UInt32(0)) { max($0, UInt32(bitPattern: $1 &+ 1)) }
    guard largest <= UInt32(limit) else {
      let place = row.firstIndex { $0 < -1 || $0 >= limit } ?? 0
      throw .invalid(
        "topk_indices[\(token)][\(place)]", row[place],
        "must be -1 to \(limit - 1), "
          + (batch.contextOnly ? "in the request's context" : "the token's own position"))
    }
  }
}
