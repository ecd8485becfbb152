/// Bounds on a batch, far beyond what is worth running: lists of tasks grow with it,
/// and a program that Swift finds no memory for ends.
enum BatchSize {
  /// Pairs of request and head.
  static let mostPairs = 1 << 24
  /// Of an output; no memory holds more.
  static let mostElements = 1 << 44

  /// - Parameters:
  ///   - rows: of q.
  ///   - requestsField: what the caller calls the number of requests, for messages.
  ///   - rowsField: likewise, the row offsets.
  static func check(
    _ rows: RowOffsets, _ config: BackendConfig, requestsField: String, rowsField: String
  ) throws(MLAError) {
    try check(requests: rows.requestCount, numHeads: config.numHeads, field: requestsField)
    try check(
      rows: rows.rowCount, numHeads: config.numHeads, vHeadDim: config.vHeadDim,
      field: "\(rowsField)[\(rows.requestCount)]")
  }

  static func check(requests: Int, numHeads: Int, field: @autoclosure () -> String)
    throws(MLAError)
  {
    let most = mostPairs / numHeads
    guard requests <= most else {
      throw .invalid(field(), requests, "must be at most \(most) with num_heads \(numHeads)")
    }
  }

  static func check(rows: Int, numHeads: Int, vHeadDim: Int, field: @autoclosure () -> String)
    throws(MLAError)
  {
    let most = mostElements / (numHeads * vHeadDim)
    guard rows <= most else {
      throw .invalid(
        field(), rows,
        "must be at most \(most) with num_heads \(numHeads) and v_head_dim \(vHeadDim)")
    }
  }
}
