import CMLAPrefill

extension LayerBatch {
  /// Takes what the caller has selected, and returns where it is; nil: nothing.
  ///
  /// Read are as many rows as the batch has, which are to be those of q.
  mutating func select(_ raw: mla_layer_forward_args) throws(MLAError) -> CallTensor? {
    guard raw.topk_indices != nil else { return nil }
    guard raw.topk >= 1 else { throw .invalid("topk", raw.topk, "must be at least 1") }
    let indices = try CallTensor(
      topkIndices: raw.topk_indices, rows: queryStartLoc.rowCount, topk: raw.topk,
      stride: raw.topk_stride)
    selected = try SelectedKeys(indices, of: self)
    return indices
  }
}

extension SelectedKeys {
  /// Each checked against what its token sees.
  fileprivate init(_ indices: CallTensor, of batch: LayerBatch) throws(MLAError) {
    guard let entries = UnsafePointer<Int32>(bitPattern: indices.view.address) else {
      throw .null("topk_indices")
    }
    self.init(entries, stride: indices.strides[0], topk: indices.width)
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
