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
    let mostRequests = mostPairs / config.numHeads
    guard rows.requestCount <= mostRequests else {
      throw .invalid(
        requestsField, rows.requestCount,
        "must be at most \(mostRequests) with num_heads \(config.numHeads)")
    }
    let mostRows = mostElements / (config.numHeads * config.vHeadDim)
    guard rows.rowCount <= mostRows else {
      throw .invalid(
        "\(rowsField)[\(rows.requestCount)]", rows.rowCount,
        "must be at most \(mostRows) with num_heads \(config.numHeads) and v_head_dim "
          + "\(config.vHeadDim)")
    }
  }
}
