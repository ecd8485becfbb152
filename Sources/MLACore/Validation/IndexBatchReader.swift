import CMLAPrefill

extension IndexBatch {
  /// - Parameter q: [tokens, heads, head_dim].
  init(_ raw: mla_index_select_args, _ q: CallTensor) throws(MLAError) {
    let offsets = try RowOffsets(
      raw.query_start_loc, requests: raw.num_requests, countField: "num_requests",
      field: "query_start_loc")
    try q.requireRows(of: offsets, "query_start_loc")
    let lengths =
      raw.context_lens == nil
      ? FixedArray()
      : try readContextLens(raw.context_lens, count: offsets.requestCount, field: "context_lens")
    for request in lengths.indices {
      let most = Int(Int32.max) - offsets.count(request)
      guard Int(lengths[request]) <= most else {
        throw .invalid(
          "context_lens[\(request)]", lengths[request],
          "must be at most \(most) with \(offsets.count(request)) new tokens")
      }
    }
    let rows = try Self.rows(raw, of: q)
    let visible =
      try raw.visible_keys.map { pointer throws(MLAError) in
        try FixedArray(
          copying: UnsafeBufferPointer(start: pointer + rows.lowerBound, count: rows.count),
          for: "visible_keys of a batch")
      } ?? FixedArray()
    self.init(queryStartLoc: offsets, contextLens: lengths, visible: visible, rows: rows)
    if raw.visible_keys != nil { try check(visible, rows, offsets, lengths) }
  }

  private static func rows(_ raw: mla_index_select_args, of q: CallTensor) throws(MLAError)
    -> Range<Int>
  {
    let count = Int64(q.shape[0])
    guard (0...count).contains(raw.first_row) else {
      throw .invalid("first_row", raw.first_row, "must be 0 to the \(count) rows of q")
    }
    guard (0...count - raw.first_row).contains(raw.num_rows) else {
      throw .invalid(
        "num_rows", raw.num_rows,
        "must be 0 to \(count - raw.first_row), the rows of q from first_row on")
    }
    if raw.first_row == 0 && raw.num_rows == 0 { return 0..<Int(count) }
    return Int(raw.first_row)..<Int(raw.first_row + raw.num_rows)
  }

  private func check(
    _ visible: FixedArray<Int32>, _ worked: Range<Int>, _ offsets: RowOffsets,
    _ lengths: FixedArray<Int32>
  ) throws(MLAError) {
    for request in requests {
      let keys = (lengths.isEmpty ? 0 : lengths[request]) + Int32(offsets.count(request))
      for row in rows(of: request) {
        let seen = visible[row - worked.lowerBound]
        guard (0...keys).contains(seen) else {
          throw .invalid(
            "visible_keys[\(row)]", seen,
            "must be 0 to the \(keys) keys of context and new tokens of request \(request)")
        }
      }
    }
  }
}

extension IndexBatch: CachedTokens {
  func cachedTokens(_ request: Int) -> Int { visibleKeys(rows(of: request), of: request) }
  func cachedTokensField(_ request: Int) -> String {
    "the keys that tokens of request \(request) see"
  }
}
